"""The lock of a lake in an object store: a lease that is moved by conditional puts alone, and renewed by a thread."""

import json
import logging
import secrets
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import ObjectStore
from typing_extensions import override

from pipeline.errors import JobError, LeaseLost, first_line
from pipeline.lake.lock_holder import HOLDER, Holder, Lock

if TYPE_CHECKING:
    from obstore import UpdateVersion

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
CLOCK = "lock.clock"  # written only for the time that the store says it was written at
LOST = signal.SIGUSR2  # wakes a job whose lease is lost; a shell's background jobs ignore SIGINT


@dataclass(frozen=True)
class _Lease:
    """The lease as it lies in the store."""

    free: bool
    id: str  # of the hold, not of the run
    seconds: float
    writes: int
    holder: Holder
    version: "UpdateVersion"
    written: datetime


class StoreLease(Lock):
    """A lease in an object store that knows conditional puts.

    Its age is told by the store's clock alone. The holder stops at two thirds of its length without a renewal, by its
    own clock, so that it has stopped before anyone may take over.
    """

    poll_seconds = 2.0
    taken_over = False

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store, self._uri, self._seconds = store, uri, LEASE_SECONDS
        self._id, self._writes = secrets.token_hex(8), 0
        self._version: UpdateVersion = {}
        self._valid_until = 0.0
        self._lost = False
        self._fault = ""  # why it was not renewed
        self._other: _Lease | None = None
        self._ended = threading.Event()

    @override
    def take(self, me: Holder) -> bool:
        self._me = me
        try:
            found = self._read()
            if found is not None and not found.free and not self._is_stale(found):
                self._other = found
                return False
            if not self._write("create" if found is None else found.version):
                return False
        except BaseError as error:
            raise JobError(f"{self._uri} cannot be locked: {first_line(error)}") from error
        self._other, self._fault = None, ""
        self.taken_over = found is not None and not found.free
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._handler = signal.signal(LOST, _interrupt)
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()
        return True

    @override
    def held_by(self) -> str:
        if self._other is None:  # it was given back while we looked, or another run was faster
            return "another run"
        return f"{self._other.holder}, whose lease ends by itself within {self._other.seconds:g} s if it is dead"

    @override
    def check(self) -> None:
        if self._lost or time.monotonic() > self._valid_until:
            winner = f" to {self._other.holder}" if self._other else ""
            fault = f" ({self._fault})" if self._fault else ""
            raise LeaseLost(
                f"the lease on {self._uri} was lost{winner}, as it could not be renewed in time{fault}: the job "
                "stopped, what it had committed stays, run it again"
            )

    @override
    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._in_main_thread:
            signal.signal(LOST, self._handler)
        try:
            if not self._lost and not self._write(self._version, free=True):
                logger.warning("the lease on %s had been taken over", self._uri)
        except BaseError as error:
            logger.warning("the lease on %s ends in %g s: %s", self._uri, self._seconds, first_line(error))

    def _renew(self) -> None:
        pause = self._seconds / 3
        while not self._ended.wait(pause):
            try:
                self._fault = ""
                self._lost = not self._write(self._version)
                pause = self._seconds / 3
            except (BaseError, JobError) as error:
                self._fault = first_line(error)
                logger.warning("the lease on %s was not renewed: %s", self._uri, self._fault)
                pause = self._seconds / 12
            if self._lost or time.monotonic() > self._valid_until:
                self._lost = True
                if self._in_main_thread:
                    signal.pthread_kill(threading.main_thread().ident or 0, LOST)
                return

    def _read(self) -> _Lease | None:
        try:
            found = obstore.get(self._store, HOLDER)
        except (NotFoundError, FileNotFoundError) as gone:
            self._fault = first_line(gone)
            return None
        try:
            content = json.loads(bytes(found.bytes()))
            said = {name: content[name] for name in ("free", "id", "seconds", "writes")}
            return _Lease(
                **said, holder=Holder.of(content), version=_version(found.meta), written=found.meta["last_modified"]
            )
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{self._uri}/{HOLDER} is no lease: delete it when no job is running") from error

    def _write(self, mode: "Literal['create'] | UpdateVersion", *, free: bool = False) -> bool:
        """Put the lease where the store still holds what we know; false where it does not."""
        asked = time.monotonic()
        self._writes += 1  # equal contents would have equal tags, and a renewal would go unseen
        lease = {"free": free, "id": self._id, "seconds": self._seconds, "writes": self._writes}
        content = json.dumps(asdict(self._me) | lease, indent=2).encode()
        while True:
            try:
                self._version = _version(obstore.put(self._store, HOLDER, content, mode=mode))
                break
            except (AlreadyExistsError, PreconditionError):
                found = self._read()
                if found is None or found.id != self._id:
                    self._other = found
                    return False
                self._version = mode = found.version  # written by us: the answer was lost on its way
                if found.writes == self._writes:
                    break
        self._valid_until = asked + self._seconds * 2 / 3
        return True

    def _is_stale(self, lease: _Lease) -> bool:
        obstore.put(self._store, CLOCK, b"")
        now = obstore.head(self._store, CLOCK)["last_modified"]
        return (now - lease.written).total_seconds() > lease.seconds


def _version(found: Mapping[str, Any]) -> "UpdateVersion":
    version: UpdateVersion = {"e_tag": found["e_tag"]}
    if found["version"] is not None:
        version["version"] = found["version"]
    return version


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

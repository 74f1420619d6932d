"""One writer on a lake: a job that writes holds the lake's lock from its first read to its last commit, a reader never.

In a folder the lock is the operating system's, on ``LAKE/.lock``: it ends with the process that holds it, however that
ends. In an object store it is a lease, ``LAKE/lock.json``, which a thread renews; that of a dead run grows old and is
taken over. ``LAKE/lock.json`` names the holder in both.
"""

import errno
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from types import MappingProxyType

from filelock import FileLock, Timeout
from pyarrow import fs
from typing_extensions import override

from pipeline.config.models import LockSettings
from pipeline.errors import JobError
from pipeline.lake.lease import StoreLease
from pipeline.lake.lock_holder import HOLDER, Holder, Lock
from pipeline.lake.storage import Lake

logger = logging.getLogger(__name__)

LOCK = ".lock"
GRACE_SECONDS = 1.0  # for a run that is just ending, or has not yet said who it is

_held: ContextVar[Mapping[str, Lock | None]] = ContextVar("held", default=MappingProxyType({}))


@contextmanager
def one_writer(lake: Lake, settings: LockSettings, job: str, run_id: str) -> Iterator[Lock | None]:
    """Be the only run that writes to ``lake`` for the length of the block; blocks within it share the hold.

    Raises:
        JobError: another run writes, and did not end within ``settings.wait_seconds``; it is named.
    """
    if holds(lake):
        yield _held.get()[lake.uri]
        return
    lock = _lock_of(lake)
    if lock is not None:
        _wait_for(lock, lake, settings.wait_seconds, Holder(job, run_id))
    token = _held.set({**_held.get(), lake.uri: lock})
    try:
        yield lock
    finally:
        _held.reset(token)
        if lock is not None:
            lock.release()


def holds(lake: Lake) -> bool:
    """Whether a block around this one is the lake's one writer."""
    return lake.uri in _held.get()


def _lock_of(lake: Lake) -> Lock | None:
    if isinstance(lake.filesystem, fs.LocalFileSystem):
        return FolderLock(lake)
    if lake.store is None:
        logger.warning("no lock is kept on %s: see to it that one job at a time writes there", lake.uri)
        return None
    return StoreLease(lake.store.obstore(lake.uri), lake.uri)


def _wait_for(lock: Lock, lake: Lake, wait_seconds: float, me: Holder) -> None:
    deadline = time.monotonic() + max(wait_seconds, GRACE_SECONDS)
    told = wait_seconds <= GRACE_SECONDS
    while not lock.take(me):
        left = deadline - time.monotonic()
        if left <= 0:
            waited = f" after {wait_seconds:g} s" if wait_seconds else ""
            raise JobError(
                f"{lake.uri} is{' still' if waited else ''} being written by {lock.held_by()}{waited}: run this again "
                "when that has ended, or let runs wait for each other with lock.wait_seconds"
            )
        if not told:
            logger.warning("waiting up to %g s for %s, written by %s", wait_seconds, lake.uri, lock.held_by())
            told = True
        time.sleep(min(lock.poll_seconds, left))


class FolderLock(Lock):
    """An OS lock on a file of a lake that is a local or mounted folder; no child process inherits it."""

    poll_seconds = 0.2
    taken_over = False  # a file lock ends with its process

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # A lock file that merely exists would outlive a killed run: where the OS knows no locks, say so instead.
        self._file = FileLock(lake.path(LOCK), timeout=0, thread_local=False, fallback_to_soft=False)

    @override
    def take(self, me: Holder) -> bool:
        try:
            self._file.acquire()
        except Timeout:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # nothing that is wrong with locks
                raise
            raise JobError(f"{self._lake.path(LOCK)} cannot be locked: {error}; the lake needs file locks") from error
        try:
            self._lake.write_json(HOLDER, asdict(me))
        except BaseException:
            self._file.release()
            raise
        return True

    @override
    def held_by(self) -> str:
        try:
            with self._lake.filesystem.open_input_file(self._lake.path(HOLDER)) as file:
                return str(Holder.of(json.loads(file.read())))
        except (FileNotFoundError, ValueError):  # it has just been taken or given back
            return "another run"

    @override
    def check(self) -> None:
        """An OS lock stays ours until we give it back."""

    @override
    def release(self) -> None:
        with suppress(FileNotFoundError):
            self._lake.filesystem.delete_file(self._lake.path(HOLDER))
        self._file.release()

"""The run record: what a job did, on what, how long it took and how much memory; written even when it fails."""

import logging
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import psutil
import pyarrow as pa

from pipeline.config.file import config_hash
from pipeline.config.models import Config
from pipeline.config.places import without_secrets
from pipeline.errors import GateRefused, JobError
from pipeline.lake.commit import EPOCH, NUMBERS, RUN_TIME, RUNS, Writer, fence, run_time
from pipeline.lake.lock import holds, one_writer
from pipeline.lake.lock_holder import Lock
from pipeline.lake.phases import Phases
from pipeline.lake.progress import Progress, bars
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, TABLES, Table

logger = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.5
RUN_ID = re.compile(r"\d{8}T\d{12}-[0-9a-f]{4}")
_under_way: list["Run"] = []  # of this process, the outermost first
_ended: list["Run"] = []  # the one that ended last


def new_run_id(lake: Lake) -> str:
    """An identifier greater than every one that the lake has: UTC to the microsecond, and four random digits.

    Where a host's clock was ahead once, later runs count on from there.
    """
    return _run_id_after(_newest(lake))


def _run_id_after(microseconds: int) -> str:
    began = max(datetime.now(UTC), EPOCH + timedelta(microseconds=microseconds + 1))
    return f"{began:{RUN_TIME}}-{secrets.token_hex(2)}"


def _newest(lake: Lake) -> int:
    """The time of the latest run that left a record or a commit; of the tables the log alone is read."""
    known = lake.names("runs")
    times = [0]
    for table in filter(lake.exists, TABLES.values()):
        delta = lake.delta(table)
        times.append((delta.transaction_version(RUNS) or 0) // NUMBERS)
        if table is ITEMS:
            actions = pa.table(delta.get_add_actions(flatten=True))
            known += actions["max.run_id"].drop_null().to_pylist() if "max.run_id" in actions.column_names else []
    return max([*times, *map(_time, known)])


def _time(name: str) -> int:
    try:
        return run_time(name) if RUN_ID.fullmatch(name) else 0
    except ValueError:  # of the form, and no day
        return 0


def running() -> "Run | None":
    """The run of this process that is under way, the innermost where one runs within another."""
    return _under_way[-1] if _under_way else None


def latest() -> "Run | None":
    """:func:`running`, else the run of this process that ended last."""
    return running() or (_ended[-1] if _ended else None)


class Run:
    """One job of one run, as a context; leaving it writes ``LAKE/runs/RUN_ID/JOB.json``.

    A job that ``writes`` more than its record holds the lake's lock meanwhile; jobs within it share the hold, and those
    of its run id are phases of it.
    """

    def __init__(
        self, job: str, config: Config, *, run_id: str | None = None, writes: bool = True, **arguments: Any
    ) -> None:
        self.job = job
        self.config = config
        self.lake = (Lake.create if writes else Lake.open)(config.lake, config.storage_options)
        self._given_id = run_id
        self.run_id = run_id or _run_id_after(0)
        self.started = datetime.now(UTC)
        self.arguments = arguments
        self.counts: dict[str, int] = {}
        self.metrics: dict[str, Any] = {}
        self.phases = Phases()
        self.progress = Progress(job, self.phases)
        self.versions: dict[str, dict[str, int | None]] = {"read": {}, "written": {}}
        self._memory = _PeakMemory()
        self._writes = writes
        self._hold = ExitStack()
        self._lock: Lock | None = None

    def __enter__(self) -> Self:
        self.phases.start()
        self._memory.start()
        if (outer := running()) and outer.run_id == self._given_id:
            self._hold.enter_context(outer.phases.of(self.job))
        _under_way.append(self)
        if not bars():
            self.progress.start(lambda: running() is self)
        if self._writes:
            try:
                with self.phase("lock"):
                    within = holds(self.lake)
                    hold = one_writer(self.lake, self.config.lock, self.job, self.run_id)
                    self._lock = self._hold.enter_context(hold)
                    self._become_writer(within)
            except BaseException as refused:
                with self._hold:
                    self._finish(refused)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lake.writer = None
        with self._hold:
            try:
                self.check_lock()
            except JobError as lost:
                self._finish(lost)
                raise lost from error
            self._finish(error)

    def _become_writer(self, within: bool) -> None:
        """From here on nobody else writes, so an id that is the greatest stays so until this run ends.

        Jobs ``within`` another one's hold have its id. A plan that was made before keeps its own, and has a place after
        all others.
        """
        place = None
        if not within and (newest := _newest(self.lake)) >= _time(self.run_id):
            fresh = _run_id_after(newest)
            place, self.run_id = run_time(fresh), self._given_id or fresh
        self.lake.writer = Writer(self.job, self.run_id, self.check_lock, place)
        if self._lock is not None and self._lock.taken_over and not within:
            fence(self.lake)

    def _finish(self, error: BaseException | None) -> None:
        self._memory.stop()
        self.progress.stop()
        _under_way.remove(self)
        if outer := running():
            outer.progress.heard()
        _ended[:] = [self]
        try:
            self.lake.write_json(f"runs/{self.run_id}/{self.job}.json", self.record(error))
        except OSError as failure:
            if error is None:
                raise
            logger.error("the run record could not be written: %s", failure)  # the job's own error matters more

    def check_lock(self) -> None:
        """Make sure, before something final, that the lake is still this run's to write to.

        Raises:
            JobError: its lease was lost.
        """
        if self._lock is not None:
            self._lock.check()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the job; what a phase within takes is that one's alone."""
        self.check_lock()
        with self.phases.of(name):
            yield

    @property
    def seconds(self) -> dict[str, float]:
        """By phase, until now."""
        return self.phases.seconds()

    def count(self, **counts: int) -> None:
        """Add to the job's counts: ``rows_in``, ``rows_out``, ``skipped``, ``quarantined``, …"""
        for name, n in counts.items():
            self.counts[name] = self.counts.get(name, 0) + n

    def read(self, table: Table, version: int | None = None) -> None:
        """Note the version of a table that the job reads."""
        self.versions["read"][table.name] = self.lake.version(table) if version is None else version

    def wrote(self, table: Table) -> None:
        """Note the version that a table has after the job's commit."""
        self.versions["written"][table.name] = self.lake.version(table)

    def record(self, error: BaseException | None = None) -> dict[str, Any]:
        """The record as JSON-able values; seconds are wall time, phases add up to ``total``; memory is in bytes."""
        seconds = self.seconds
        total = sum(seconds.values())
        rows = self.counts.get("rows_out", 0)
        record = {
            "run_id": self.run_id,
            "job": self.job,
            "status": "refused" if isinstance(error, GateRefused) else "failed" if error else "done",
            "started": self.started.isoformat(),
            "arguments": self.arguments,
            "config_hash": config_hash(self.config),
            "hi_sam": version("hi-sam"),
            "tables": self.versions,
            "counts": self.counts,
            "seconds": {name: round(s, 3) for name, s in seconds.items()} | {"total": round(total, 3)},
            "rows_per_second": round(rows / total, 1) if rows else None,
            "peak_memory_bytes": self._memory.peak,
            "metrics": self.metrics,
        }
        if error is not None:
            detail = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
            record["error"] = without_secrets(detail)[:4000]
        return record


class _PeakMemory:
    """The largest resident memory that this process and its children (JVM, Ray) had together, sampled."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak-memory")
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            self.peak = max(self.peak, sum(_private_memory(process) for process in (me, *me.children(recursive=True))))
            if self._done.wait(SAMPLE_SECONDS):
                return


def _private_memory(process: psutil.Process) -> int:
    """Resident bytes less shared ones, so that Ray's object store and a fork's pages are not counted again."""
    try:
        memory = process.memory_info()
    except psutil.Error:  # the process ended between listing and asking
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))

"""What the records under ``LAKE/runs`` tell of the past: the last run of every job, what it knew, how fast it was."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

from pipeline.errors import JobError
from pipeline.lake.run import RUN_ID, Run
from pipeline.lake.storage import Lake
from schemas.tables import Table

logger = logging.getLogger(__name__)

RECENT = 10  # records that a rate is taken from


class RunRecords:
    """The records of a lake, listed once, the newest first, and read when they are asked for.

    What is no run's, and what cannot be read, as after a power cut, is passed over: no night may fail by it.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        paths = [info.path for info in lake.entries("runs", below=True) if info.base_name.endswith(".json")]
        names = sorted((path.removeprefix(lake.path("runs/")) for path in paths), reverse=True)
        self._by_job: dict[str, list[str]] = {}
        for name in names:
            run_id, _, file = name.rpartition("/")
            if RUN_ID.fullmatch(run_id):
                self._by_job.setdefault(file.removesuffix(".json"), []).append(f"runs/{name}")

    def _of(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and records of a job, the newest first."""
        for name in self._by_job.get(job, []):
            try:
                yield name, self._lake.read_json(name)
            except JobError as error:
                logger.warning("%s: it is passed over, and may be deleted", error)

    def newest_of_each(self) -> dict[str, dict[str, Any]]:
        """The newest record of every job, the newest job first."""
        newest = {job: next(self._of(job), None) for job in self._by_job}
        found = sorted(((*pair, job) for job, pair in newest.items() if pair), key=lambda each: each[0], reverse=True)
        return {job: record for _, record, job in found}

    def last(self) -> dict[str, dict[str, Any]]:
        """:meth:`newest_of_each` in short."""
        return {job: _short(record) for job, record in self.newest_of_each().items()}

    def jobs(self) -> list[str]:
        """The jobs that have left a record that can be read, by name."""
        return sorted(job for job in self._by_job if next(self._of(job), None))

    def newest(self, job: str, most: int) -> list[dict[str, Any]]:
        """The newest records of a job, the newest first."""
        return [record for _, record in islice(self._of(job), most)]

    def finished(self, job: str) -> dict[str, Any] | None:
        """The record of the newest run that brought ``job`` to its end, ``None`` where none did."""
        return next((record for _, record in self._of(job) if record["status"] == "done"), None)

    def rate(self, job: str, rows: str, phase: str) -> float | None:
        """Rows a second of the phase that does the work, so without the start of an engine; ``None`` if never run.

        Of the newest runs the one with the most rows tells: the time of a small one is that of loading models.
        """
        records = self.newest(job, RECENT)
        worked = [
            (record["counts"][rows], record["seconds"][phase])
            for record in records
            if record["status"] == "done" and record["counts"].get(rows) and record["seconds"].get(phase)
        ]
        if not worked:
            return None
        count, seconds = max(worked)
        return count / seconds


def unchanged_since(run: Run, last: Mapping[str, Any] | None, tables: Sequence[Table], **facts: Any) -> str | None:
    """The job's ``last`` finished run, if nothing has changed since that decides what there is to do.

    Args:
        run: gets ``facts`` as metrics and the versions of ``tables``, for the next night to compare with.
        last: its record.
        tables: whose rows decide it; to be compacted is no change.
        facts: all else that decides it, as JSON has it.
    """
    for table in tables:
        run.read(table)
    run.metrics |= facts
    if last is None or last["hi_sam"] != version("hi-sam"):
        return None
    if any(last["metrics"].get(name) != fact for name, fact in facts.items()):
        return None
    known = last["tables"]["read"] | last["tables"]["written"]
    if any(table.name not in known or _changed(run, table, known[table.name]) for table in tables):
        return None
    return str(last["run_id"])


def _changed(run: Run, table: Table, since: int | None) -> bool:
    """Whether rows of a table changed since a version; ``None`` is that of one that is not there."""
    if since is None or run.versions["read"][table.name] is None:
        return since != run.versions["read"][table.name]
    return run.lake.rows_changed(table, since)


def _short(record: dict[str, Any]) -> dict[str, Any]:
    named = {key: record.get(key) for key in ("run_id", "status", "started", "counts", "error")}
    return named | {"seconds": record["seconds"]["total"]}

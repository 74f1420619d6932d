"""One commit: Parquet files that an engine has staged in a table's folder become rows of the table.

Every commit asks the lake's lock first and carries two application transactions of Delta. One has the run's place among
all runs as its version: a writer that was suspended past its lease finds a higher one there and is refused, and of
two that commit at the same time Delta lets one through. The other has the step of the run: a step that was
committed and is done again, since its acknowledgement was lost, changes nothing.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import RemoveAction

from pipeline.errors import JobError, first_line
from pipeline.lake.file_entries import add_actions, bounded_columns, partition_values
from pipeline.lake.storage import Lake
from schemas.tables import TABLES, Table

RUNS = "hisam"  # the application whose transaction versions order the runs
METADATA = "hisam"  # the key of a commit's information that holds ours
RUN_TIME = "%Y%m%dT%H%M%S%f"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NUMBERS = 1024  # transaction versions that a run may use, from its place on
PROPERTIES = {
    # A release that stands, and every one that a rollback reaches, outlives quiet months and any default VACUUM.
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 90 days",
}


@dataclass(frozen=True)
class Writer:
    """The run that holds the lake's lock; ``check`` raises a JobError where it has lost it.

    ``place`` orders the holds of the lock: the time in the run's id, unless that is of a plan that was made before.
    """

    job: str
    run_id: str
    check: Callable[[], None]
    place: int | None = None

    @property
    def versions(self) -> range:
        """The transaction versions that are this run's: from its place on, up to that of the next."""
        place = run_time(self.run_id) if self.place is None else self.place
        return range(place * NUMBERS, (place + 1) * NUMBERS)


def run_time(run_id: str) -> int:
    """The microseconds since 1970 that a run id begins with.

    Raises:
        ValueError: it is none.
    """
    began = datetime.strptime(run_id.partition("-")[0], RUN_TIME).replace(tzinfo=UTC)
    return (began - EPOCH) // timedelta(microseconds=1)


def create(lake: Lake, table: Table) -> None:
    """Create ``table`` with its declared schema, partitioning and retention, unless it is there."""
    DeltaTable.create(
        lake.table_uri(table),
        table.schema,
        mode="ignore",
        partition_by=list(table.partition) or None,
        configuration=PROPERTIES | {"delta.dataSkippingStatsColumns": ",".join(bounded_columns(table))},
        storage_options=lake.delta_options,
    )


def commit(
    lake: Lake,
    table: Table,
    files: Sequence[str],
    *,
    overwrite: Mapping[str, str] | None = None,
    step: tuple[str, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bool:
    """Make staged Parquet ``files`` rows of ``table``; false where this ``step`` has been committed before.

    Args:
        lake: whose lock this process holds.
        table: created if it is not there.
        files: paths relative to the table; folders named ``column=value`` give the partition. Files without a row are
            left out.
        overwrite: the partitions whose rows go in the same commit, ``{}`` for all rows; default: rows are added.
        step: name of a plan, and number of its chunk, counted from 0.
        metadata: kept with the commit.

    Raises:
        JobError: the lock is lost, or another writer was faster.
    """
    actions = add_actions(lake, table, files)
    with fenced(lake, table) as (delta, transactions):
        if step is not None:
            done = delta.transaction_version(step[0])
            if done is not None and done >= step[1]:
                return False
            if done is None:
                _refuse_old_plan(lake, table, delta)
            transactions.append(Transaction(*step))
        if actions or overwrite is not None or step is not None:
            delta.create_write_transaction(
                actions,
                "append" if overwrite is None else "overwrite",
                table.schema,
                partition_by=list(table.partition) or None,
                partition_filters=[(name, "=", value) for name, value in (overwrite or {}).items()] or None,
                commit_properties=_properties(transactions, metadata, alone=overwrite is not None),
            )
    return True


def _refuse_old_plan(lake: Lake, table: Table, delta: DeltaTable) -> None:
    writer, newest = lake.writer, delta.transaction_version(RUNS) or 0
    assert writer is not None
    if newest not in writer.versions and newest // NUMBERS > run_time(writer.run_id):
        raise JobError(
            f"{table.name} in {lake.uri} has been written by a later run than the plan of {writer.run_id}: plan again"
        )


def replace_files(lake: Lake, table: Table, replaced: Collection[str], files: Sequence[str]) -> None:
    """Put staged Parquet ``files`` in place of some files of ``table``, in one commit.

    Args:
        lake: whose lock this process holds.
        table: it is there.
        replaced: paths relative to the table, as :meth:`Lake.files` names them.
        files: as of :func:`commit`; there may be none.

    Raises:
        JobError: the lock is lost, another writer was faster, or a file is no longer one of the table's.
    """
    came = add_actions(lake, table, files)
    with fenced(lake, table) as (delta, transactions):
        known = {row["path"]: row for row in pa.table(delta.get_add_actions()).to_pylist()}
        gone = sorted(set(replaced) - known.keys())
        if gone:
            raise JobError(f"{table.name}/{gone[0]} in {lake.uri} was rewritten by another program: run it again")
        now = int(datetime.now(UTC).timestamp() * 1000)
        went = [RemoveAction(path, True, now, known[path]["size_bytes"], partition_values(path)) for path in replaced]
        delta.create_write_transaction(
            [*went, *came],
            "append",
            table.schema,
            partition_by=list(table.partition) or None,
            commit_properties=_properties(transactions, alone=True),
        )


@contextmanager
def fenced(lake: Lake, table: Table) -> Iterator[tuple[DeltaTable, list[Transaction]]]:
    """For a commit of any kind: the table as it is now, made if need be, and the transactions for the commit to carry.

    Raises:
        JobError: this process does not hold the lake's lock, or another one has written since it did.
    """
    writer = lake.writer
    if writer is None:
        raise JobError(f"{lake.uri}: only a job that holds the lake's lock may write to {table.name}")
    writer.check()
    create(lake, table)
    delta = lake.delta(table)
    newest = delta.transaction_version(RUNS) or 0
    if newest >= writer.versions.stop:
        raise overtaken(lake, table, writer)
    try:
        yield delta, [Transaction(RUNS, max(newest, writer.versions.start))]
    except Exception as error:
        if (lake.delta(table).transaction_version(RUNS) or 0) >= writer.versions.stop:
            raise overtaken(lake, table, writer) from error
        if lake.version(table) == delta.version():
            raise
        said = first_line(error)
        raise JobError(
            f"{table.name} in {lake.uri} was written by another program at the same time, or the answer to this commit "
            f"was lost on its way ({said}): run it again"
        ) from error


def fence(lake: Lake) -> None:
    """Shut out whoever held the lock before: what that one has not committed by now, it cannot commit any more."""
    for table in TABLES.values():
        if lake.exists(table):
            with fenced(lake, table) as (delta, transactions):
                properties = _properties(transactions)
                delta.create_write_transaction([], "append", table.schema, commit_properties=properties)


def _properties(
    transactions: list[Transaction], metadata: Mapping[str, str] | None = None, *, alone: bool = False
) -> CommitProperties:
    """``alone`` refuses a commit that another one came before since the table was read; delta-rs would rebase it."""
    retries = {"max_commit_retries": 0} if alone else {}
    return CommitProperties(app_transactions=transactions, custom_metadata=dict(metadata or {}), **retries)


def append(lake: Lake, table: Table, rows: pa.Table) -> None:
    """Append a few ``rows`` in one commit, after checking them against the declaration.

    Raises:
        ValueError: they depart from it.
        JobError: as :func:`commit`.
    """
    rows = table.conform(rows)
    parts: list[dict[str, Any]] = [{}]
    if table.partition:
        parts = rows.select(list(table.partition)).group_by(list(table.partition)).aggregate([]).to_pylist()
    commit(lake, table, [stage(lake, table, _part(rows, values), values) for values in parts])


def stage(lake: Lake, table: Table, rows: pa.Table, partition: Mapping[str, Any], folder: str | None = None) -> str:
    """Write ``rows`` of one partition where no reader sees them; the path that :func:`commit` wants."""
    folder = "/".join([folder or staging_folder(), *(f"{name}={value}" for name, value in partition.items())])
    lake.filesystem.create_dir(lake.path(f"{table.name}/{folder}"), recursive=True)
    file = f"{folder}/part-{new_name()}.parquet"
    stored = rows.select(table.stored.names).cast(table.stored)
    pq.write_table(stored, lake.path(f"{table.name}/{file}"), filesystem=lake.filesystem, compression="zstd")
    return file


def staged_files(lake: Lake, table: Table, folder: str) -> list[str]:
    """The Parquet files below a folder of the table, as :func:`commit` wants them."""
    found = lake.entries(f"{table.name}/{folder}", below=True)
    return sorted(info.path[info.path.index(folder) :] for info in found if info.extension == "parquet")


def _part(rows: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    for name, value in values.items():
        rows = rows.filter(pc.equal(rows[name], value))
    return rows


def staging_folder() -> str:
    """A new folder of a table."""
    return f"staged-{new_name()}"


def new_name() -> str:
    """A name that nothing else has."""
    return uuid.uuid4().hex


def overtaken(lake: Lake, table: Table, writer: Writer) -> JobError:
    """What a run that has lost the lake without knowing it ends with."""
    return JobError(
        f"{table.name} in {lake.uri} has been written by a later run than {writer.job} ({writer.run_id}), whose hold "
        "of the lake was lost: the job stopped, what it had committed stays, run it again"
    )

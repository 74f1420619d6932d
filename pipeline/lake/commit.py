"""One commit: Parquet files that an engine has staged in a table's folder become rows of the table.

Every commit asks the lake's lock first and carries two application transactions of Delta. One has the run's place among
all runs as its version: a writer that was suspended past its lease finds a higher one there and is refused, and of
two that commit at the same time Delta lets one through. The other has the step of the run: a step that was
committed and is done again, since its acknowledgement was lost, changes nothing.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction
from pyarrow import fs

from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from schemas.tables import TABLES, Table

RUNS = "hisam"  # the application whose transaction versions order the runs
AT_ONCE = 16  # footers read at a time; an object store takes its time for each
LONGEST = 64  # characters of a bound that the log keeps
RUN_TIME = "%Y%m%dT%H%M%S%f"
PROPERTIES = {
    # A release that stands, and every one that a rollback reaches, outlives quiet months and any default VACUUM.
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 90 days",
}


@dataclass(frozen=True)
class Writer:
    """The run that holds the lake's lock; ``check`` raises a JobError where it has lost it."""

    job: str
    run_id: str
    check: Callable[[], None]

    @property
    def place(self) -> int:
        """Its place among all runs of the lake: the microseconds of its id."""
        began = datetime.strptime(self.run_id.partition("-")[0], RUN_TIME).replace(tzinfo=UTC)
        return int(began.timestamp() * 1_000_000)


def create(lake: Lake, table: Table) -> None:
    """Create ``table`` with its declared schema, partitioning and retention, unless it is there."""
    DeltaTable.create(
        lake.table_uri(table),
        table.schema,
        mode="ignore",
        partition_by=list(table.partition) or None,
        configuration=PROPERTIES,
        storage_options=lake.storage_options,
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
    create(lake, table)
    actions = add_actions(lake, table, files)
    with fenced(lake, table) as (delta, transactions):
        if step is not None:
            done = delta.transaction_version(step[0])
            if done is not None and done >= step[1]:
                return False
            transactions.append(Transaction(*step))
        if actions or overwrite is not None or step is not None:
            delta.create_write_transaction(
                actions,
                "append" if overwrite is None else "overwrite",
                table.schema,
                partition_by=list(table.partition) or None,
                partition_filters=[(name, "=", value) for name, value in (overwrite or {}).items()] or None,
                commit_properties=CommitProperties(app_transactions=transactions, custom_metadata=dict(metadata or {})),
            )
    return True


@contextmanager
def fenced(lake: Lake, table: Table) -> Iterator[tuple[DeltaTable, list[Transaction]]]:
    """For a commit of any kind: the table as it is now, and the transactions that the commit must carry.

    Raises:
        JobError: this process does not hold the lake's lock, or another one has written since it did.
    """
    writer = lake.writer
    if writer is None:
        raise JobError(f"{lake.uri}: only a job that holds the lake's lock may write to {table.name}")
    writer.check()
    delta = lake.delta(table)
    newest = delta.transaction_version(RUNS)
    if newest is not None and newest > writer.place:
        raise JobError(_overtaken(lake, table, writer))
    try:
        yield delta, [Transaction(RUNS, writer.place)]
    except CommitFailedError as error:
        if "oncurrent transaction" not in str(error):
            raise
        raise JobError(_overtaken(lake, table, writer)) from error


def fence(lake: Lake) -> None:
    """Shut out whoever held the lock before: what that one has not committed by now, it cannot commit any more."""
    for table in TABLES.values():
        if lake.exists(table):
            with fenced(lake, table) as (delta, transactions):
                properties = CommitProperties(app_transactions=transactions)
                delta.create_write_transaction([], "append", table.schema, commit_properties=properties)


def append(lake: Lake, table: Table, rows: pa.Table) -> None:
    """Append a few ``rows`` in one commit, after checking them against the declaration.

    Raises:
        ValueError: they depart from it.
        JobError: as :func:`commit`.
    """
    rows, parts = table.conform(rows), [{}]
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
    base = lake.path(table.name)
    found = lake.filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", recursive=True, allow_not_found=True))
    return sorted(info.path[info.path.index(folder) :] for info in found if info.extension == "parquet")


def add_actions(lake: Lake, table: Table, files: Sequence[str]) -> list[AddAction]:
    """What the log says of each file: its size, its rows, and the least and greatest key; footers are read at once."""
    infos = lake.filesystem.get_file_info([lake.path(f"{table.name}/{file}") for file in files])
    keys = [
        name for name in table.key if name in table.stored.names and pa.types.is_string(table.stored.field(name).type)
    ]

    def action(file: str, info: fs.FileInfo) -> AddAction | None:
        with lake.filesystem.open_input_file(info.path) as stream:
            footer = pq.read_metadata(stream)
        if footer.num_rows == 0:
            return None
        return AddAction(
            path=file,
            size=info.size,
            partition_values=_partition_values(file),
            modification_time=int(info.mtime.timestamp() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": footer.num_rows, **_bounds(footer, keys)}),
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(action, files, infos))
    return [each for each in found if each is not None]


def _bounds(footer: pq.FileMetaData, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    least, most = {}, {}
    columns = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    for key in keys:
        groups = [footer.row_group(g).column(columns[key]).statistics for g in range(footer.num_row_groups)]
        if all(group is not None and group.has_min_max for group in groups):
            low, high = min(group.min for group in groups), max(group.max for group in groups)
            if isinstance(low, str) and isinstance(high, str) and max(len(low), len(high)) <= LONGEST:
                least[key], most[key] = low, high
    return {"minValues": least, "maxValues": most, "nullCount": dict.fromkeys(least, 0)}


def _part(rows: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    for name, value in values.items():
        rows = rows.filter(pc.equal(rows[name], value))
    return rows


def _partition_values(path: str) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in path.split("/")[:-1] if "=" in part]
    return {name: unquote(value) for name, _, value in pairs}


def staging_folder() -> str:
    """A new folder of a table."""
    return f"staged-{new_name()}"


def new_name() -> str:
    """A name that nothing else has."""
    return uuid.uuid4().hex


def _overtaken(lake: Lake, table: Table, writer: Writer) -> str:
    return (
        f"{table.name} in {lake.uri} has been written by a later run than {writer.job} ({writer.run_id}), whose hold "
        "of the lake was lost: the job stopped, what it had committed stays, run it again"
    )

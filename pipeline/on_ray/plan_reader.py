"""From a plan to rows and back: every part of a plan is read by one task, and results are staged for one commit.

Workers open the lake for themselves, so no file system, and no secret in one, travels.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import Dataset

from pipeline.lake.commit import commit, stage, staging_folder
from pipeline.lake.plans import Plan
from pipeline.lake.storage import Lake
from schemas.tables import Table

FILE_ROWS = 20_000  # of a staged file: the least that a later job reads

ReadPart = Callable[[Lake, str], Iterator[pa.Table]]


def read_parts(lake: Lake, parts: list[str], read: ReadPart, block_rows: int) -> Dataset:
    """The rows that ``read`` makes of each part, streamed, in blocks of ``block_rows`` for the workers that come after.

    Ray Data would make one block of what a task reads, 128 MB of it, and give that to one worker.
    """
    listed = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=max(1, len(parts)))
    # Less than a core, so that Ray does not make one operation of reading and of what comes after it.
    rows = listed.map_batches(
        _read_part, batch_size=1, batch_format="pyarrow", num_cpus=0.5, fn_kwargs={"lake": lake, "read": read}
    )
    return rows.repartition(target_num_rows_per_block=block_rows)


def stage_rows(rows: Dataset, lake: Lake, table: Table, partition: dict[str, str]) -> list[str]:
    """Write ``rows`` of one partition where no reader sees them; the paths that a commit wants."""
    staged = rows.map_batches(
        _stage_rows,
        batch_size=FILE_ROWS,
        batch_format="pyarrow",
        fn_kwargs={"lake": lake, "table": table, "partition": partition, "folder": staging_folder()},
    )
    return sorted(row["file"] for row in staged.take_all())


def do_plan(lake: Lake, plan: Plan, table: Table, chunk_files: Callable[[int], list[str]]) -> Iterator[int]:
    """Commit what ``chunk_files`` stages of each chunk of ``plan`` that is not committed yet; yields its number.

    The table itself knows the last chunk of a plan that it has, whoever was killed on the way.
    """
    done = lake.delta(table).transaction_version(plan.name) if lake.exists(table) else None
    for chunk in plan.pending(done):
        commit(lake, table, chunk_files(chunk), step=(plan.name, chunk))
        yield chunk


def _read_part(listed: pa.Table, lake: Lake, read: ReadPart) -> Iterator[pa.Table]:
    for part in listed["part"].to_pylist():
        yield from read(lake, part)


def _stage_rows(rows: pa.Table, **where: Any) -> pa.Table:
    return pa.table({"file": pa.array([stage(rows=rows, **where)] if rows.num_rows else [], pa.string())})


def read_columns(lake: Lake, path: str, columns: list[str], rows: int) -> Iterator[pa.Table]:
    """Some columns of a Parquet file at a path of the lake's file system, so many rows at a time."""
    with lake.filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield pa.Table.from_batches([batch])

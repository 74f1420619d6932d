"""What the lake holds now: the live version of every item, from key columns alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.lake.storage import Lake
from schemas.tables import EMBEDDINGS, ITEMS, SEMANTIC_IDS


def live_items(lake: Lake, version: int | None = None) -> pa.Table:
    """The newest version of every item that is not deleted.

    Columns ``item_id``, ``content_hash``, ``run_id`` (of the run that extracted it) and ``file`` (which holds it).
    """
    columns = ["item_id", "content_hash", "deleted", "run_id", "__filename"]
    rows = lake.read(ITEMS, columns, version=version).rename_columns([*columns[:4], "file"])
    rows = rows.sort_by([("item_id", "ascending"), ("run_id", "ascending")]).combine_chunks()
    if not rows.num_rows:
        return rows.drop_columns(["deleted"])
    ids = rows["item_id"]
    newest = np.append(np.asarray(pc.not_equal(ids[:-1], ids[1:])), True)
    return rows.filter(pa.array(newest)).filter(~ds.field("deleted")).drop_columns(["deleted"])


def without(rows: pa.Table, done: pa.Table, key: list[str]) -> pa.Table:
    """The rows whose ``key`` is not among those of ``done``."""
    return rows.filter(pc.invert(pc.is_in(row_key(rows, key), value_set=row_key(done, key))))


def only(rows: pa.Table, wanted: pa.Table, key: list[str]) -> pa.Table:
    """The rows whose ``key`` is among those of ``wanted``."""
    return rows.filter(pc.is_in(row_key(rows, key), value_set=row_key(wanted, key)))


def first_of_each(rows: pa.Table, column: str) -> pa.Table:
    """The first row of each value: what overlapping runs wrote twice counts once."""
    codes = rows[column].combine_chunks().dictionary_encode().indices
    return rows.take(np.sort(np.unique(np.asarray(codes), return_index=True)[1]))


def row_key(rows: pa.Table, columns: list[str]) -> pa.Array:
    """One string a row that two rows share only if they agree in ``columns``."""
    joined = pc.binary_join_element_wise(*(rows[column] for column in columns), "\0")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def encoded(lake: Lake, encoder: str) -> pa.Table:
    """``content_hash`` and ``file`` of everything that has a vector under ``encoder``."""
    rows = lake.read(EMBEDDINGS, ["content_hash", "__filename"], where=ds.field("encoder") == encoder)
    return first_of_each(rows.rename_columns(["content_hash", "file"]).sort_by("file"), "content_hash")


def tokenized(lake: Lake, tokenizer: str, version: int | None = None) -> pa.Table:
    """``item_id`` and ``content_hash`` of everything that has IDs under ``tokenizer``."""
    return lake.read(
        SEMANTIC_IDS, ["item_id", "content_hash"], where=ds.field("tokenizer") == tokenizer, version=version
    )


@dataclass(frozen=True)
class Chunk:
    """A part of the work: rows to do, and the files (relative to their table) that hold them."""

    rows: pa.Table
    files: list[str]


def chunks(rows: pa.Table, commit_rows: int) -> Iterator[Chunk]:
    """Cut ``rows``, which have a column ``file``, into chunks of whole files and about ``commit_rows`` rows."""
    rows = rows.sort_by("file").combine_chunks()
    files = rows["file"].value_counts() if rows.num_rows else []
    start = taken = 0
    batch: list[str] = []
    for entry in files:
        batch.append(entry["values"].as_py())
        taken += entry["counts"].as_py()
        if taken >= commit_rows:
            yield Chunk(rows.slice(start, taken), batch)
            start, taken, batch = start + taken, 0, []
    if batch:
        yield Chunk(rows.slice(start, taken), batch)

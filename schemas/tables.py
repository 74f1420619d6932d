"""Every table of the lake: its Arrow schema, its key, its partitioning, and a check that names every fault.

Types are those that Delta knows. Delta has neither half floats nor lists of a fixed size, so a vector is a
``list<float>`` whose values are float16 numbers; Parquet's dictionary encoding then stores two bytes a value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from schemas.reasons import Reason

CODES = pa.list_(pa.int16())
VECTOR = pa.list_(pa.float32())
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """A column's name, type and meaning; ``null`` says whether it may hold nulls."""

    name: str
    kind: pa.DataType
    meaning: str
    null: bool = False


@dataclass(frozen=True)
class Table:
    """A table's name and declared form.

    ``row`` says what a row is, ``writer`` which engine writes it. ``key`` identifies a row within one append;
    ``partition`` lists the columns that Delta partitions by; ``allowed`` lists the values of columns that take no
    others.
    """

    name: str
    row: str
    writer: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: tuple[str, ...] = ()
    allowed: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns in order, those that may hold no null declared so."""
        return pa.schema([pa.field(column.name, column.kind, nullable=column.null) for column in self.columns])

    @property
    def stored(self) -> pa.Schema:
        """The columns that a Parquet file of the table has: all but those that it is partitioned by."""
        return pa.schema([column for column in self.schema if column.name not in self.partition])

    def check(self, rows: pa.Table | pa.RecordBatch) -> list[str]:
        """Every way in which ``rows`` departs from the declaration, as sentences; empty when there is none."""
        faults = [f"column {name!r} is missing" for name in self.schema.names if name not in rows.schema.names]
        faults += [f"column {name!r} is not declared" for name in rows.schema.names if name not in self.schema.names]
        for declared in self.schema:
            name = declared.name
            if name not in rows.schema.names:
                continue
            column = rows.column(name)
            if not _same_type(column.type, declared.type):
                faults.append(f"column {name!r} is {column.type}, declared {declared.type}")
            elif not declared.nullable and column.null_count:
                faults.append(f"column {name!r} has {column.null_count} nulls")
            elif name in self.allowed and (strange := set(column.to_pylist()) - set(self.allowed[name])):
                faults.append(f"column {name!r} has values that are not declared: {', '.join(sorted(strange))}")
        if not faults:
            faults += self._repeated_keys(rows)
        return [f"{self.name}: {fault}" for fault in faults]

    def conform(self, rows: pa.Table) -> pa.Table:
        """``rows`` with exactly the declared columns, in order and type, once :meth:`check` finds no fault.

        Raises:
            ValueError: with every fault.
        """
        faults = self.check(rows)
        if faults:
            raise ValueError("; ".join(faults))
        return rows.select(self.schema.names).cast(self.schema)

    def _repeated_keys(self, rows: pa.Table | pa.RecordBatch) -> list[str]:
        keys = pa.Table.from_arrays([rows.column(name) for name in self.key], names=list(self.key))
        counts = keys.group_by(list(self.key)).aggregate([([], "count_all")])
        repeated = counts.filter(pc.greater(counts["count_all"], 1))
        if not repeated.num_rows:
            return []
        example = {name: repeated[name][0].as_py() for name in self.key}
        return [f"{repeated.num_rows} keys appear more than once, such as {example}"]


def _same_type(actual: pa.DataType, declared: pa.DataType) -> bool:
    """Equal but for what carries no meaning: large offsets, fixed list sizes, names of list items."""
    if pa.types.is_list(declared):
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return any(check(actual) for check in lists) and _same_type(actual.value_type, declared.value_type)
    if pa.types.is_string(declared):
        return pa.types.is_string(actual) or pa.types.is_large_string(actual)
    if pa.types.is_binary(declared):
        return pa.types.is_binary(actual) or pa.types.is_large_binary(actual)
    return actual == declared


_CODES = (
    Column("shared", CODES, "codes of what text and picture both tell, coarse to fine"),
    Column("text", CODES, "codes of what the text alone tells; null where the item has no text", null=True),
    Column("image", CODES, "codes of what the picture alone tells; null where the item has no picture", null=True),
    Column("sid", pa.string(), "the codes in readable form, such as `s12-7-40.t3-9.i20-1`"),
    Column("has_text", pa.bool_(), "whether a text was encoded"),
    Column("has_image", pa.bool_(), "whether a picture was encoded"),
)


ITEMS = Table(
    "items",
    "a version of an item: its text and picture in canonical form, or the note that it left the catalogue",
    "Spark",
    (
        Column("item_id", pa.string(), "the id as the catalogue spells it"),
        Column("run_id", pa.string(), "the run that made the version; orders an item's versions"),
        Column("text", pa.string(), "the filled template, cleaned", null=True),
        Column("image", pa.binary(), "the picture as a JPEG of at most `catalog.image.size` pixels", null=True),
        Column("text_sha", pa.string(), "SHA-256 of the text; of a vector that came with the catalogue", null=True),
        Column("image_sha", pa.string(), "SHA-256 of the stored picture; of a vector that came along", null=True),
        Column("row_hash", pa.string(), "hash of the source's row, and of the settings that read it", null=True),
        Column("picture_stat", pa.string(), "what told, unopened, that the picture was this one", null=True),
        Column("deleted", pa.bool_(), "true of the version that says that the item left the catalogue"),
        Column("extracted_at", TIME, "when the version was written"),
    ),
    key=("item_id", "run_id"),
)

QUARANTINE = Table(
    "quarantine",
    "what is wrong with an item of the newest source, by reason",
    "Spark",
    (
        Column("item_id", pa.string(), "the id; of a bad id a key that no item can have"),
        Column("reason", pa.string(), "a code of `schemas/reasons.py`"),
        Column("detail", pa.string(), "what was found, at most 500 printable characters"),
        Column("source", pa.string(), "the catalogue's path"),
        Column("run_id", pa.string(), "the run that found it"),
        Column("seen_at", TIME, "when"),
    ),
    key=("item_id", "reason"),
    allowed={"reason": [reason.value for reason in Reason]},
)

VECTORS = Table(
    "vectors",
    "the vector of a text or a picture under its encoder, or why there is none; never of an item",
    "Ray; Spark where vectors come with the catalogue",
    (
        Column("encoder", pa.string(), "the encoder's fingerprint"),
        Column("sha", pa.string(), "`text_sha` or `image_sha` of what was encoded"),
        Column("vector", VECTOR, "float16 numbers, of length one; null where the encoder failed", null=True),
        Column("fault", pa.string(), "why there is no vector", null=True),
    ),
    key=("encoder", "sha"),
    partition=("encoder",),
)

SEMANTIC_IDS = Table(
    "semantic_ids",
    "an item's codes for one content under one tokenizer",
    "Ray",
    (
        Column("item_id", pa.string(), "the item"),
        Column("content", pa.string(), "names text and picture together: 32 digits of a hash of both"),
        Column("tokenizer", pa.string(), "the tokenizer's fingerprint"),
        Column("item_hash", pa.int64(), "63 bits of a hash of the id: tells items of equal codes apart"),
        *_CODES,
        Column("run_id", pa.string(), "the run that made the row"),
    ),
    key=("item_id", "content", "tokenizer"),
    partition=("tokenizer",),
)

RELEASED_IDS = Table(
    "released_ids",
    "an item of the current release: what readers read, sorted by `item_id`, one commit a release",
    "Spark",
    (
        Column("item_id", pa.string(), "the item"),
        Column("item_hash", pa.int64(), "as in `semantic_ids`; unique together with `sid`"),
        Column("content", pa.string(), "as in `semantic_ids`"),
        Column("tokenizer", pa.string(), "the released tokenizer's fingerprint"),
        Column("release", pa.int64(), "the release that first held these rows"),
        *_CODES,
    ),
    key=("item_id",),
)

RELEASE_CHANGES = Table(
    "release_changes",
    "an item that a release added, changed or removed: what a downstream table applies",
    "Spark",
    (
        Column("release", pa.int64(), "the release; its row in `releases` comes after these"),
        Column("item_id", pa.string(), "the item"),
        Column("change", pa.string(), "what the release did to it"),
        Column("old_sid", pa.string(), "before; null where it was added", null=True),
        Column("new_sid", pa.string(), "after; null where it was removed", null=True),
    ),
    key=("release", "item_id"),
    partition=("release",),
    allowed={"change": ["added", "changed", "removed"]},
)

RELEASES = Table(
    "releases",
    "a release, or a rollback, with what was checked before it",
    "delta-rs",
    (
        Column("version", pa.int64(), "the release's number, from 1"),
        Column("tokenizer", pa.string(), "its tokenizer's fingerprint"),
        Column("action", pa.string(), "how it came about"),
        Column("gates", pa.string(), "JSON: figure and limit of every gate, and whether it was forced"),
        Column("items_version", pa.int64(), "Delta version of `items` that was released"),
        Column("semantic_ids_version", pa.int64(), "Delta version of `semantic_ids` that was released"),
        Column("released_ids_version", pa.int64(), "Delta version of `released_ids` that a rollback restores"),
        Column("digest", pa.string(), "a hash of the rows, in any order"),
        Column("run_id", pa.string(), "the run that made it"),
        Column("time", TIME, "when"),
    ),
    key=("version",),
    allowed={"action": ["publish", "rollback"]},
)

SEQUENCES = Table(
    "sequences",
    "a window of a user's history, ready for training; an entry of a list is an event, in the order of time",
    "Spark",
    (
        Column("user_id", pa.string(), "the user"),
        Column("window", pa.int32(), "the window's number, of a user's windows"),
        Column("item_hashes", pa.list_(pa.int64()), "`item_hash` of every event's item"),
        Column("item_ids", pa.list_(pa.string()), "the items' ids, in the test split alone", null=True),
        Column("tokens", CODES, "all codes of the first item, then of the second, and so on; absent ones filled in"),
        Column("labels", pa.list_(pa.int8()), "1 for a positive event, 0 for another"),
        Column("feedback", pa.list_(pa.float32()), "graded feedback, null where the log has none", null=True),
        Column("times", pa.list_(pa.int64()), "milliseconds since 1970-01-01 UTC"),
        Column("loss_mask", pa.list_(pa.bool_()), "whether the event counts here; the others are its history"),
        Column("train_count", pa.list_(pa.int32()), "training events of the item"),
        Column("train_clicks", pa.list_(pa.int32()), "of these, positive ones"),
        Column("requests", pa.list_(pa.int32()), "in the test split, the number of the user's request", null=True),
        Column("known", pa.list_(pa.int32()), "and how many of the window's events came before it", null=True),
        Column("latest", pa.bool_(), "whether it ends with the user's last event, in one window a user"),
        Column("split", pa.string(), "train or test"),
        Column("tokenizer", pa.string(), "whose codes these are"),
    ),
    key=("user_id", "window", "tokenizer", "split"),
    partition=("tokenizer", "split"),
)

TABLES = {
    table.name: table
    for table in (ITEMS, QUARANTINE, VECTORS, SEMANTIC_IDS, RELEASED_IDS, RELEASE_CHANGES, RELEASES, SEQUENCES)
}

"""Every table of the lake: its Arrow schema, its key, its partitioning, and a check that names every fault.

Types are those that Delta knows. Delta has neither half floats nor lists of a fixed size, so a vector is a
``list<float>`` whose values are float16 numbers; Parquet's dictionary encoding then stores two bytes a value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from schemas.reasons import Reason

CODES = pa.list_(pa.int16())
VECTOR = pa.list_(pa.float32())
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Table:
    """A table's name and declared form.

    ``key`` identifies a row within one append; ``partition`` lists the columns that Delta partitions by.
    Columns that may not be null are declared so in ``schema``; ``allowed`` lists the values of columns that take
    no others.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partition: tuple[str, ...] = ()
    allowed: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

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


def _column(name: str, kind: pa.DataType, *, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null)


_CODES = (
    _column("shared", CODES),
    _column("text", CODES, null=True),
    _column("image", CODES, null=True),
    _column("sid", pa.string()),
    _column("has_text", pa.bool_()),
    _column("has_image", pa.bool_()),
)


ITEMS = Table(
    "items",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("run_id", pa.string()),  # orders an item's versions
            _column("text", pa.string(), null=True),
            _column("image", pa.binary(), null=True),
            _column("text_sha", pa.string(), null=True),
            _column("image_sha", pa.string(), null=True),
            _column("row_hash", pa.string(), null=True),  # of the row as the source had it, and of what reads it
            _column("picture_stat", pa.string(), null=True),  # what told, unopened, that the picture was this one
            _column("deleted", pa.bool_()),
            _column("extracted_at", TIME),
        ]
    ),
    key=("item_id", "run_id"),
)

QUARANTINE = Table(
    "quarantine",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("reason", pa.string()),
            _column("detail", pa.string()),
            _column("source", pa.string()),
            _column("run_id", pa.string()),
            _column("seen_at", TIME),
        ]
    ),
    key=("item_id", "reason"),
    allowed={"reason": [reason.value for reason in Reason]},
)

VECTORS = Table(
    "vectors",
    pa.schema(
        [
            _column("encoder", pa.string()),
            _column("sha", pa.string()),  # of the text or the picture, never of an item
            _column("vector", VECTOR, null=True),
            _column("fault", pa.string(), null=True),  # why there is no vector
        ]
    ),
    key=("encoder", "sha"),
    partition=("encoder",),
)

SEMANTIC_IDS = Table(
    "semantic_ids",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("content", pa.string()),  # names text and picture together
            _column("tokenizer", pa.string()),
            _column("item_hash", pa.int64()),
            *_CODES,
            _column("run_id", pa.string()),
        ]
    ),
    key=("item_id", "content", "tokenizer"),
    partition=("tokenizer",),
)

RELEASED_IDS = Table(
    "released_ids",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("item_hash", pa.int64()),
            _column("content", pa.string()),
            _column("tokenizer", pa.string()),
            _column("release", pa.int64()),  # that first held these rows
            *_CODES,
        ]
    ),
    key=("item_id",),
)

RELEASE_CHANGES = Table(
    "release_changes",
    pa.schema(
        [
            _column("release", pa.int64()),
            _column("item_id", pa.string()),
            _column("change", pa.string()),
            _column("old_sid", pa.string(), null=True),
            _column("new_sid", pa.string(), null=True),
        ]
    ),
    key=("release", "item_id"),
    partition=("release",),
    allowed={"change": ["added", "changed", "removed"]},
)

RELEASES = Table(
    "releases",
    pa.schema(
        [
            _column("version", pa.int64()),
            _column("tokenizer", pa.string()),
            _column("action", pa.string()),  # publish or rollback
            _column("gates", pa.string()),  # JSON: figure and limit of every gate
            _column("items_version", pa.int64()),
            _column("semantic_ids_version", pa.int64()),
            _column("released_ids_version", pa.int64()),  # that a rollback restores
            _column("digest", pa.string()),  # of the rows, in any order
            _column("run_id", pa.string()),
            _column("time", TIME),
        ]
    ),
    key=("version",),
    allowed={"action": ["publish", "rollback"]},
)

SEQUENCES = Table(
    "sequences",
    pa.schema(
        [
            _column("user_id", pa.string()),
            _column("window", pa.int32()),
            _column("item_hashes", pa.list_(pa.int64())),
            _column("item_ids", pa.list_(pa.string()), null=True),  # of the test split alone
            _column("tokens", CODES),
            _column("labels", pa.list_(pa.int8())),
            _column("feedback", pa.list_(pa.float32()), null=True),  # graded, null where the log has none
            _column("times", pa.list_(pa.int64())),  # milliseconds since 1970-01-01 UTC
            _column("loss_mask", pa.list_(pa.bool_())),
            _column("train_count", pa.list_(pa.int32())),  # training events of the item
            _column("train_clicks", pa.list_(pa.int32())),  # of these, positive ones
            _column("requests", pa.list_(pa.int32()), null=True),  # of the test split: number of the user's request
            _column("known", pa.list_(pa.int32()), null=True),  # and how many of the window's events came before it
            _column("latest", pa.bool_()),  # whether it ends with the user's last event, in one window a user
            _column("split", pa.string()),
            _column("tokenizer", pa.string()),
        ]
    ),
    key=("user_id", "window", "tokenizer", "split"),
    partition=("tokenizer", "split"),
)

TABLES = {
    table.name: table
    for table in (ITEMS, QUARANTINE, VECTORS, SEMANTIC_IDS, RELEASED_IDS, RELEASE_CHANGES, RELEASES, SEQUENCES)
}

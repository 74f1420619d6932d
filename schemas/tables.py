"""Every table of the lake: its Arrow schema, its key, its partitioning, and a check that names every fault.

Types are those that Delta knows. Delta has neither half floats nor lists of a fixed size, so an embedding is a
``list<float>`` whose values are float16 numbers; Parquet's dictionary encoding then stores two bytes a value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from schemas.reasons import Reason

CODES = pa.list_(pa.int16())
EMBEDDING = pa.list_(pa.float32())
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


ITEMS = Table(
    "items",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("content_hash", pa.string()),
            _column("text", pa.string(), null=True),
            _column("image", pa.binary(), null=True),
            _column("text_sha", pa.string(), null=True),
            _column("image_sha", pa.string(), null=True),
            _column("image_source", pa.string(), null=True),  # hash of the picture as the source has it, and of bounds
            _column("deleted", pa.bool_()),
            _column("run_id", pa.string()),
            _column("extracted_at", TIME),
        ]
    ),
    key=("item_id", "content_hash"),
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

EMBEDDINGS = Table(
    "embeddings",
    pa.schema(
        [
            _column("content_hash", pa.string()),
            _column("encoder", pa.string()),
            _column("text_sha", pa.string(), null=True),
            _column("image_sha", pa.string(), null=True),
            _column("text_embedding", EMBEDDING, null=True),
            _column("image_embedding", EMBEDDING, null=True),
        ]
    ),
    key=("content_hash", "encoder"),
    partition=("encoder",),
)

SEMANTIC_IDS = Table(
    "semantic_ids",
    pa.schema(
        [
            _column("item_id", pa.string()),
            _column("content_hash", pa.string()),
            _column("tokenizer", pa.string()),
            _column("shared", CODES),
            _column("text", CODES, null=True),
            _column("image", CODES, null=True),
            _column("disambiguator", pa.int64()),
            _column("sid", pa.string()),
            _column("has_text", pa.bool_()),
            _column("has_image", pa.bool_()),
            _column("run_id", pa.string()),
        ]
    ),
    key=("item_id", "content_hash", "tokenizer"),
    partition=("tokenizer",),
)

SEQUENCES = Table(
    "sequences",
    pa.schema(
        [
            _column("user_id", pa.string()),
            _column("window", pa.int32()),
            _column("item_ids", pa.list_(pa.string())),
            _column("tokens", CODES),
            _column("labels", pa.list_(pa.int8())),
            _column("times", pa.list_(pa.int64())),  # milliseconds since 1970-01-01 UTC
            _column("loss_mask", pa.list_(pa.bool_())),
            _column("train_count", pa.list_(pa.int32())),
            _column("split", pa.string()),
            _column("tokenizer", pa.string()),
        ]
    ),
    key=("user_id", "window", "tokenizer", "split"),
    partition=("tokenizer", "split"),
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
            _column("run_id", pa.string()),
            _column("time", TIME),
        ]
    ),
    key=("version",),
)

TABLES = {table.name: table for table in (ITEMS, QUARANTINE, EMBEDDINGS, SEMANTIC_IDS, SEQUENCES, RELEASES)}

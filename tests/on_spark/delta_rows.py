"""Rows for tables, and what clients of Delta that are not ours see of them."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import spark_schema
from schemas.tables import ITEMS, RELEASE_CHANGES, SEQUENCES, Table

NOW = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
LONG = "\u00e9" * 63 + "\U0001f600" * 100


FORMS = [
    "embedded",
    pytest.param("native", marks=pytest.mark.native_delta),
    pytest.param("s3", marks=pytest.mark.spark_on_s3),
]
IN_STORE = pytest.param("s3", marks=[pytest.mark.spark_on_s3, pytest.mark.slow])
in_both_settings = pytest.mark.parametrize("form", [*FORMS[:2], IN_STORE], indirect=True)  # in a store where slow
in_every_form = pytest.mark.parametrize("form", FORMS, indirect=True)  # in the default suite, where others are slow


def items(spark: SparkSession, *ids: str, image: bytes | None = b"\xff\x00", run_id: str = "run") -> DataFrame:
    rows = [(i, run_id, f"text {i}", image, "t", None, "row", "stat", False, NOW) for i in ids]
    return spark.createDataFrame(rows, spark_schema(ITEMS))


def windows(spark: SparkSession, tokenizer: str, split: str, *users: str) -> DataFrame:
    lists = {"item_hashes": [2**60], "tokens": [1, 2], "labels": [1], "times": [5], "loss_mask": [True]}
    lists |= {"train_count": [0], "train_clicks": [0]}
    known = {"window": 0, **lists, "latest": True, "split": split, "tokenizer": tokenizer}
    rows = [tuple(({"user_id": user} | known).get(name) for name in SEQUENCES.schema.names) for user in users]
    return spark.createDataFrame(rows, spark_schema(SEQUENCES))


def changes(spark: SparkSession, release: int, *ids: str) -> DataFrame:
    return spark.createDataFrame([(release, i, "added", None, "s1") for i in ids], spark_schema(RELEASE_CHANGES))


def foreign(lake: Lake, table: Table) -> DeltaTable:
    return DeltaTable(lake.table_uri(table), storage_options=lake.delta_options)


def read_back(lake: Lake, table: Table) -> pa.Table:
    return table.conform(foreign(lake, table).to_pyarrow_table().select(table.schema.names))


def ids(frame: DataFrame) -> list[str]:
    return sorted(row["item_id"] for row in frame.select("item_id").toLocalIterator())


def files_of(lake: Lake, table: Table) -> set[str]:
    found = lake.filesystem.get_file_info(fs.FileSelector(lake.path(table.name), recursive=True))
    return {info.path for info in found if info.type == fs.FileType.File}

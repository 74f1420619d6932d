"""Both settings of Delta pass the same tests, and foreign clients read what they leave."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from pipeline.config.models import SparkSettings
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta, spark_delta, spark_schema
from schemas.tables import ITEMS, SEQUENCES, Table

pytestmark = pytest.mark.spark

NOW = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)


@pytest.fixture(params=["embedded", pytest.param("native", marks=pytest.mark.native_delta)])
def tables(request: pytest.FixtureRequest, spark: SparkSession, lake: Lake) -> SparkDelta:
    return spark_delta(spark, lake, SparkSettings(delta=request.param))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def items(spark: SparkSession, *ids: str, image: bytes | None = b"\xff\x00") -> DataFrame:
    rows = [(i, f"hash-{i}", f"text {i}", image, "t", None, None, False, "run", NOW) for i in ids]
    return spark.createDataFrame(rows, spark_schema(ITEMS))


def windows(spark: SparkSession, tokenizer: str, split: str, *users: str) -> DataFrame:
    rows = [(u, 0, ["a"], [1, 2], [1], [5], [True], [0], split, tokenizer) for u in users]
    return spark.createDataFrame(rows, spark_schema(SEQUENCES))


def read_back(lake: Lake, table: Table) -> pa.Table:
    return table.conform(DeltaTable(lake.table_uri(table)).to_pyarrow_table().select(table.schema.names))


def test_rows_come_back_with_the_declared_types(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a", "b"))
    tables.append(ITEMS, items(spark, "c", image=None))
    stored = read_back(lake, ITEMS).sort_by("item_id").to_pylist()
    assert [row["item_id"] for row in stored] == ["a", "b", "c"]
    assert stored[0]["image"] == b"\xff\x00"
    assert stored[2]["image"] is None
    assert stored[0]["extracted_at"] == NOW
    frame = tables.read(ITEMS)
    assert frame.schema.simpleString() == spark_schema(ITEMS).simpleString()
    assert {row.item_id for row in frame.where("image is not null").toLocalIterator()} == {"a", "b"}


def test_nothing_to_append_makes_no_commit(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    assert tables.read(ITEMS).isEmpty()
    tables.append(ITEMS, items(spark))
    version = lake.version(ITEMS)
    tables.append(ITEMS, items(spark))
    assert lake.version(ITEMS) == version == 0
    assert not list(Path(lake.table_uri(ITEMS)).glob("staged-*"))
    tables.append(ITEMS, items(spark, "a"))
    assert lake.version(ITEMS) == 1
    assert tables.read(ITEMS, version=0).isEmpty()
    assert lake.rows(ITEMS) == 1


def test_overwriting_one_partition_leaves_the_others(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1", "u2"))  # a name that looks like a number
    tables.append(SEQUENCES, windows(spark, "0034", "train", "u1"))
    tables.append(SEQUENCES, windows(spark, "0034", "test", "u9"))
    tables.overwrite(SEQUENCES, windows(spark, "0012", "test", "u3"), where={"tokenizer": "0012"})
    kept = {(r.tokenizer, r.split, r.user_id) for r in tables.read(SEQUENCES).toLocalIterator()}
    assert kept == {("0012", "test", "u3"), ("0034", "train", "u1"), ("0034", "test", "u9")}
    one = tables.read(SEQUENCES, where={"tokenizer": "0034", "split": "test"})
    assert [tuple(r.tokens) for r in one.toLocalIterator()] == [(1, 2)]
    assert read_back(lake, SEQUENCES).num_rows == 3


def test_overwriting_with_nothing_empties_the_table(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    tables.overwrite(ITEMS, items(spark))
    assert tables.read(ITEMS).isEmpty()
    assert read_back(lake, ITEMS).num_rows == 0


def test_a_failed_write_leaves_the_table_as_it_was(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    before = set(Path(lake.table_uri(ITEMS)).rglob("*.parquet"))
    broken = (
        items(spark, "b")
        .selectExpr("*", "assert_true(item_id = 'a') as checked")
        .where("checked is null")
        .drop("checked")
    )
    with pytest.raises(Exception, match=r"item_id = '?a'?"):
        tables.append(ITEMS, broken)
    assert read_back(lake, ITEMS)["item_id"].to_pylist() == ["a"]
    assert set(Path(lake.table_uri(ITEMS)).rglob("*.parquet")) == before


def test_an_interrupt_after_the_commit_takes_nothing_back(
    spark: SparkSession, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = DeltaTable.create_write_transaction

    def interrupted(*arguments: object, **options: object) -> None:
        commit(*arguments, **options)
        raise KeyboardInterrupt

    tables = spark_delta(spark, lake, SparkSettings(delta="embedded"))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tables.append(ITEMS, items(spark, "a"))
    assert read_back(lake, ITEMS)["item_id"].to_pylist() == ["a"]


def test_a_null_where_none_may_be_is_not_written(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    with pytest.raises(Exception, match="column 'item_id' has a null"):
        tables.append(ITEMS, items(spark, "a").selectExpr("cast(null as string) as item_id", "* except (item_id)"))
    assert read_back(lake, ITEMS).num_rows == 0


def test_a_lake_may_lie_where_names_have_spaces(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "my l\u00e4ke"))
    tables = spark_delta(spark, lake, SparkSettings(delta="embedded"))
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1"))
    assert tables.read(SEQUENCES).count() == 1
    with pytest.raises(ConfigError, match="has % in its path"):
        Lake(str(tmp_path / "100%"))


def test_native_delta_on_s3_needs_a_safe_log_store(spark: SparkSession, lake: Lake) -> None:
    lake.uri = "s3://bucket/lake"
    with pytest.raises(ConfigError, match="needs a log store"):
        spark_delta(spark, lake, SparkSettings(delta="native"))


def test_a_foreign_client_reads_the_declared_columns(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1"))
    seen = DeltaTable(lake.table_uri(SEQUENCES)).to_pyarrow_dataset()  # duckdb scans it by name
    rows = duckdb.sql("SELECT user_id, tokens, loss_mask, tokenizer FROM seen").fetchall()
    assert rows == [("u1", [1, 2], [True], "0012")]
    assert seen is not None

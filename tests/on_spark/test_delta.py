"""Embedded and native Delta, in a folder and in an object store, pass the same tests; foreign clients read them all."""

import json

import duckdb
import pyarrow.dataset as ds
import pytest
from delta_rows import LONG, NOW, changes, foreign, ids, in_both_settings, in_every_form, items, read_back, windows
from pyspark.sql import SparkSession

from pipeline.config.models import SparkSettings
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import LOG_STORE, SAFE_LOG_STORES, SparkDelta, spark_delta, spark_schema
from schemas.tables import ITEMS, RELEASE_CHANGES, SEQUENCES, VECTORS

pytestmark = pytest.mark.spark

STORE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}


@in_every_form
def test_rows_come_back_with_the_declared_types(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a", LONG))
    tables.append(ITEMS, items(spark, "c", image=None))
    stored = read_back(lake, ITEMS).sort_by("item_id").to_pylist()
    assert [row["item_id"] for row in stored] == ["a", "c", LONG]
    assert stored[0]["image"] == b"\xff\x00"
    assert stored[1]["image"] is None
    assert stored[0]["extracted_at"] == NOW
    frame = tables.read(ITEMS)
    assert frame.schema.simpleString() == spark_schema(ITEMS).simpleString()
    assert ids(frame.where("image is not null")) == ["a", LONG]


def test_every_file_has_bounds_by_which_a_filter_picks(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    for item in ("a", "\U0001f600", LONG):
        tables.append(ITEMS, items(spark, item))
    for item in ("a", "\U0001f600", LONG):
        where = ds.field("item_id") == item
        assert lake.read(ITEMS, ["item_id"], where=where)["item_id"].to_pylist() == [item]
        assert ids(tables.read(ITEMS).where(f"item_id = '{item}'")) == [item]
        fragments = list(foreign(lake, ITEMS).to_pyarrow_dataset().get_fragments(where))
        assert len(fragments) == 1
    for column in (ds.field("deleted"), ds.field("text").is_null(), ds.field("image_sha").is_valid()):
        assert lake.read(ITEMS, ["item_id"], where=~column).num_rows == 3


def test_located_rows_say_where_they_lie(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    assert tables.read(ITEMS, located=True).columns == [*ITEMS.schema.names, "file", "position"]
    tables.append(ITEMS, items(spark, "a", "b", "c").coalesce(1))
    tables.append(ITEMS, items(spark, "d"))
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1"))
    found = {row["item_id"]: (row["file"], row["position"]) for row in tables.read(ITEMS, located=True).collect()}
    assert {file for file, _ in found.values()} == set(lake.files(ITEMS))
    assert sorted(position for file, position in found.values() if file == found["a"][0]) == [0, 1, 2]
    for item, (file, position) in found.items():
        rows = ds.dataset(lake.path(f"items/{file}"), filesystem=lake.filesystem).to_table()
        assert rows["item_id"][position].as_py() == item
    [row] = tables.read(SEQUENCES, located=True).collect()
    assert [row["file"]] == lake.files(SEQUENCES)
    some = tables.read(ITEMS, files=[found["a"][0]])
    assert {"a", "b", "c"} <= set(ids(some))
    assert ids(tables.read(ITEMS, files=[]).where("false")) == []


def test_nothing_to_append_makes_no_commit(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    assert tables.read(ITEMS).isEmpty()
    tables.append(ITEMS, items(spark))
    version = lake.version(ITEMS)
    tables.append(ITEMS, items(spark))
    assert lake.version(ITEMS) == version == 0
    tables.append(SEQUENCES, windows(spark, "0012", "train"))
    tables.append(ITEMS, items(spark, "a"))
    assert lake.version(ITEMS) == 1
    assert tables.read(ITEMS, version=0).isEmpty()
    assert lake.rows(ITEMS) == 1


@in_both_settings
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


def test_a_partition_may_be_a_number(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    for release in (1, 2, 10):
        tables.overwrite(RELEASE_CHANGES, changes(spark, release, "a", "b"), where={"release": str(release)})
    tables.overwrite(RELEASE_CHANGES, changes(spark, 10, "c"), where={"release": "10"})
    found = sorted((row["release"], row["item_id"]) for row in tables.read(RELEASE_CHANGES).collect())
    assert found == [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (10, "c")]
    assert ids(tables.read(RELEASE_CHANGES, where={"release": "10"})) == ["c"]
    assert len(lake.files(RELEASE_CHANGES, {"release": "10"})) == 1


def test_overwriting_with_nothing_empties_the_table(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    tables.overwrite(ITEMS, items(spark))
    assert tables.read(ITEMS).isEmpty()
    assert read_back(lake, ITEMS).num_rows == 0


def test_an_older_version_stays_readable(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    tables.overwrite(ITEMS, items(spark, "b"))
    version = lake.version(ITEMS)
    assert version is not None
    assert ids(tables.read(ITEMS, version=version - 1)) == ["a"]
    assert ids(tables.read(ITEMS)) == ["b"]
    assert lake.whole(ITEMS, version - 1)


@in_both_settings
def test_staged_rows_are_seen_by_their_writer_alone(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    staged = tables.stage(ITEMS, items(spark, "b", "c"))
    assert ids(staged.rows) == ["b", "c"]
    assert ids(tables.read(ITEMS)) == ["a"]
    before = lake.version(ITEMS)
    tables.commit(staged, overwrite={}, metadata={"release": "7", "name": "caf\u00e9"})
    assert ids(tables.read(ITEMS)) == ["b", "c"]
    assert lake.version(ITEMS) == (before or 0) + 1
    [commit] = lake.delta(ITEMS).history(1)
    said = json.loads(commit["hisam"]) if "hisam" in commit else json.loads(commit["userMetadata"])["hisam"]
    assert said == {"release": "7", "name": "caf\u00e9"}


def test_keys_are_deleted_from_the_files_that_hold_them(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    for names in (("a", "b"), ("c", LONG), ("e",)):
        tables.append(ITEMS, items(spark, *names).coalesce(1))
    tables.append(ITEMS, items(spark, "a", run_id="a later run"))
    before, version = set(lake.files(ITEMS)), lake.version(ITEMS)
    tables.delete(ITEMS, items(spark, "a", LONG, "e", "e", "never seen"))
    left = sorted((row["item_id"], row["run_id"]) for row in tables.read(ITEMS).collect())
    assert left == [("a", "a later run"), ("b", "run"), ("c", "run")]
    assert lake.version(ITEMS) == (version or 0) + 1
    kept = before & set(lake.files(ITEMS))
    assert len(kept) == 1
    assert read_back(lake, ITEMS).num_rows == 3
    assert lake.read(ITEMS, ["text"], where=ds.field("item_id") == "b")["text"].to_pylist() == ["text b"]
    version = lake.version(ITEMS)
    tables.delete(ITEMS, items(spark, "never seen"))
    assert ids(tables.read(ITEMS)) == ["a", "b", "c"]
    assert set(lake.files(ITEMS)) >= kept


@in_both_settings
def test_keys_are_deleted_in_every_partition(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    for encoder in ("one", "two"):
        rows = [(encoder, sha, [0.5], None) for sha in ("x", "y")]
        tables.append(VECTORS, spark.createDataFrame(rows, spark_schema(VECTORS)))
    gone = [("one", "x"), ("two", "x"), ("two", "y")]
    tables.delete(VECTORS, spark.createDataFrame(gone, "encoder string, sha string"))
    assert [(row["encoder"], row["sha"]) for row in tables.read(VECTORS).collect()] == [("one", "y")]
    assert tables.read(VECTORS, where={"encoder": "two"}).isEmpty()
    tables.delete(VECTORS, tables.read(VECTORS))
    assert read_back(lake, VECTORS).num_rows == 0


def test_a_foreign_client_reads_the_declared_columns(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1"))
    seen = foreign(lake, SEQUENCES).to_pyarrow_dataset()  # duckdb scans it by name
    rows = duckdb.sql("SELECT user_id, tokens, loss_mask, tokenizer FROM seen").fetchall()
    assert rows == [("u1", [1, 2], [True], "0012")]
    assert seen is not None


def test_native_delta_on_s3_needs_a_safe_log_store(spark: SparkSession) -> None:
    for conf in ({}, {LOG_STORE: "io.delta.storage.GCSLogStore"}, {"spark.delta.logStore.gs.impl": SAFE_LOG_STORES[0]}):
        with pytest.raises(ConfigError, match=r"log store that is known to lose no commit.*S3DynamoDBLogStore"):
            spark_delta(spark, Lake("s3://bucket/lake", STORE), SparkSettings(delta="native", conf=conf))

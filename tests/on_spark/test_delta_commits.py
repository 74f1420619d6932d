"""Writes of Spark's that fail, are overtaken or are given up leave their table as it was, in every form of Delta."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from delta_rows import NOW, changes, files_of, ids, in_every_form, items, read_back, windows
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from writing import as_writer

from pipeline.config.models import SparkSettings
from pipeline.errors import JobError
from pipeline.lake.commit import RUNS, append, fence
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta, spark_delta
from schemas.tables import ITEMS, RELEASE_CHANGES, SEQUENCES

pytestmark = pytest.mark.spark


def test_what_is_discarded_leaves_nothing(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(SEQUENCES, windows(spark, "0012", "train", "u1"))
    before, version = files_of(lake, SEQUENCES), lake.version(SEQUENCES)
    staged = tables.stage(SEQUENCES, windows(spark, "0012", "train", "u2"))
    assert staged.rows.count() == 1
    tables.discard(staged)
    assert files_of(lake, SEQUENCES) == before
    assert lake.version(SEQUENCES) == version


def test_a_failed_write_leaves_the_table_as_it_was(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    before, version = files_of(lake, ITEMS), lake.version(ITEMS)
    checked = items(spark, "b").selectExpr("*", "assert_true(item_id = 'a') as checked")
    with pytest.raises(Exception, match=r"item_id = '?a'?"):
        tables.append(ITEMS, checked.where("checked is null").drop("checked"))
    assert read_back(lake, ITEMS)["item_id"].to_pylist() == ["a"]
    assert files_of(lake, ITEMS) == before
    assert lake.version(ITEMS) == version


def test_a_null_where_none_may_be_is_not_written(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark))
    with pytest.raises(Exception, match="column 'item_id' has a null"):
        tables.append(ITEMS, items(spark, "a").selectExpr("cast(null as string) as item_id", "* except (item_id)"))
    undeclared = changes(spark, 1, "a").selectExpr("* except (change)", "'moved' as change")
    with pytest.raises(Exception, match="column 'change' has a null or a value that is not declared"):
        tables.append(RELEASE_CHANGES, undeclared)
    assert read_back(lake, ITEMS).num_rows == 0


@in_every_form
def test_an_overtaken_run_writes_nothing(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    tables.append(ITEMS, items(spark, "a"))
    tables.append(ITEMS, items(spark, "b"))
    fence(as_writer(Lake(lake.uri, lake.storage_options)))
    for attempt in (
        lambda: tables.append(ITEMS, items(spark, "stale")),
        lambda: tables.overwrite(ITEMS, items(spark, "stale")),
        lambda: tables.delete(ITEMS, items(spark, "a")),
    ):
        with pytest.raises(JobError, match="has been written by a later run than test"):
            attempt()
    assert ids(tables.read(ITEMS)) == ["a", "b"]


@pytest.mark.parametrize("kind", ["append", "overwrite", "delete"])
def test_a_run_that_is_overtaken_while_it_writes_writes_nothing(
    kind: str, spark: SparkSession, lake: Lake, tables: SparkDelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run commits between the check of the lock and our commit."""
    tables.append(ITEMS, items(spark, "a"))
    later = as_writer(Lake(lake.uri, lake.storage_options))
    version = DeltaTable.transaction_version

    def then_overtake(delta: DeltaTable, app: str) -> Any:
        found = version(delta, app)
        monkeypatch.setattr(DeltaTable, "transaction_version", version)
        fence(later)
        append(later, ITEMS, pa.Table.from_pylist([{"item_id": "later", "run_id": "r", "deleted": False,
                                                    "extracted_at": NOW}], schema=ITEMS.schema))  # fmt: skip
        return found

    monkeypatch.setattr(DeltaTable, "transaction_version", then_overtake)
    attempts = {
        "append": lambda: tables.append(ITEMS, items(spark, "stale")),
        "overwrite": lambda: tables.overwrite(ITEMS, items(spark, "stale")),
        "delete": lambda: tables.delete(ITEMS, items(spark, "a")),
    }
    with pytest.raises(JobError, match="has been written by a later run than test"):
        attempts[kind]()
    assert ids(tables.read(ITEMS)) == ["a", "later"]
    assert later.writer is not None
    assert lake.delta(ITEMS).transaction_version(RUNS) in later.writer.versions


def test_who_does_not_hold_the_lock_writes_nothing(spark: SparkSession, lake: Lake, tables: SparkDelta) -> None:
    lake.writer = None
    with pytest.raises(JobError, match="only a job that holds the lake's lock may write to items"):
        tables.append(ITEMS, items(spark, "a"))
    assert not lake.exists(ITEMS)


def test_an_interrupt_after_the_commit_takes_nothing_back(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = DeltaTable.create_write_transaction

    def interrupted(*arguments: object, **options: object) -> None:
        commit(*arguments, **options)
        raise KeyboardInterrupt

    lake = as_writer(Lake.create(str(tmp_path / "lake")))
    tables = spark_delta(spark, lake, SparkSettings(delta="embedded"))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tables.append(ITEMS, items(spark, "a"))
    assert read_back(lake, ITEMS)["item_id"].to_pylist() == ["a"]

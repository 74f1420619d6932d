"""What readers read: one release, whole, with any of three engines."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from writing import as_writer

from pipeline import Lake
from pipeline.errors import JobError
from pipeline.lake.commit import commit, fenced, stage
from schemas.tables import RELEASED_IDS


def release(lake: Lake, number: int, *items: str) -> None:
    row = {"content": "c", "tokenizer": "t", "release": number, "shared": [1], "sid": f"s{number}"}
    row |= {"has_text": True, "has_image": False, "item_hash": 1}
    rows = pa.Table.from_pylist([{"item_id": item, **row} for item in items], schema=RELEASED_IDS.schema)
    halves = [stage(lake, RELEASED_IDS, half, {}) for half in (rows.slice(0, 1), rows.slice(1))]
    commit(lake, RELEASED_IDS, halves, overwrite={})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return as_writer(Lake.create(str(tmp_path / "my l\u00e4ke")))


def test_before_the_first_release_there_is_nothing_to_read(lake: Lake) -> None:
    with pytest.raises(JobError, match=r"nothing is released in .*: run publish first"):
        lake.released_ids()
    with fenced(lake, RELEASED_IDS):
        pass  # a publish that was killed before its commit has made the table
    with pytest.raises(JobError, match="nothing is released"):
        Lake.open(lake.uri).released_ids()


def test_a_reader_stays_at_the_release_that_it_opened(lake: Lake) -> None:
    release(lake, 1, "a", "b")
    before = Lake.open(lake.uri).released_ids()
    release(lake, 2, "b", "c", "d")
    for reader in (before, pickle.loads(pickle.dumps(before))):
        assert sorted(reader.to_table()["item_id"].to_pylist()) == ["a", "b"]
        assert reader.count_rows() == 2
        assert reader.head(1, columns=["sid"]).to_pylist() == [{"sid": "s1"}]
    after = lake.released_ids()
    assert after.schema.equals(RELEASED_IDS.schema)
    assert after.count_rows() == 3
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = after.no_such_thing


@pytest.mark.spark
@pytest.mark.ray
def test_spark_and_ray_read_the_same_rows(lake: Lake, spark: SparkSession, ray: None) -> None:
    release(lake, 1, "a", "b")
    reader = lake.released_ids()
    release(lake, 2, "c", "d")
    rows = reader.to_table().sort_by("item_id").to_pylist()
    assert [row.asDict() for row in reader.spark(spark).orderBy("item_id").collect()] == rows
    assert sorted((row["item_id"], row["sid"]) for row in reader.ray().iter_rows()) == [("a", "s1"), ("b", "s1")]

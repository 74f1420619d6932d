"""Expressions of Spark against their Python twins."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.on_spark.expressions import content, item_hash
from schemas.semantic_id import item_hash as python_item_hash

pytestmark = pytest.mark.spark


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=200))
def test_the_hash_of_an_id_is_the_same_everywhere(spark: SparkSession, items: list[str]) -> None:
    frame = spark.createDataFrame([(item,) for item in items], "item_id string")
    rows = frame.select("item_id", item_hash(F.col("item_id")).alias("hash")).collect()
    assert [row["hash"] for row in rows] == [python_item_hash(row["item_id"]) for row in rows]


def test_a_content_is_named_by_both_hashes_and_by_which_is_absent(spark: SparkSession) -> None:
    pairs = [("a", "b"), ("a", None), (None, "a"), ("b", "a"), (None, None)]
    frame = spark.createDataFrame(pairs, "text_sha string, image_sha string")
    names = [
        row["name"] for row in frame.select(content(F.col("text_sha"), F.col("image_sha")).alias("name")).collect()
    ]
    assert len(set(names)) == len(pairs)
    assert names[0] == hashlib.sha256(b"a|b").hexdigest()[:32]

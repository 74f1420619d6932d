"""One point in time parts the events into training and test."""

import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config.models import Split
from pipeline.errors import JobError

SPANS = (86_400_000, 1000, 1)  # a day, a second, a millisecond
LEFT = {"after": "train on", "before": "test"}


def split_time(events: DataFrame, split: Split) -> int:
    """The time, in ms since 1970, from which on events are the test's.

    Raises:
        JobError: ``split.at`` leaves no event to train on, or none to test.
    """
    if split.at_ms is None:
        rank = math.ceil((events.count() - 1) * (1 - split.test_fraction))
        return time_of_rank(events, rank)
    (found,) = events.agg(F.min("time").alias("first"), F.max("time").alias("last")).collect()
    if not found["first"] < split.at_ms <= found["last"]:
        side = "after" if found["first"] >= split.at_ms else "before"
        raise JobError(f"split.at: every event is {side} {split.at}, which leaves none to {LEFT[side]}")
    return split.at_ms


def time_of_rank(events: DataFrame, rank: int) -> int:
    """The time of the event that so many events precede.

    Exact, whatever the order, without a sort and with little memory: events are counted by day, then by second of the
    day in question, then by millisecond.
    """
    start, end = 0, 0
    for span in SPANS:
        within = events if span == SPANS[0] else events.where(F.col("time").between(start, end - 1))
        counted = within.groupBy(F.floor(F.col("time") / span).alias("number")).count().orderBy("number").collect()
        for row in counted:
            if rank < row["count"]:
                start, end = row["number"] * span, (row["number"] + 1) * span
                break
            rank -= row["count"]
    return start


def with_split(events: DataFrame, cut: float) -> DataFrame:
    """Events with ``is_test`` (at or after ``cut``), and ``train_count`` and ``train_clicks`` of their item."""
    dated = events.withColumn("is_test", F.col("time") >= cut)
    clicks = F.sum("label").cast("int").alias("train_clicks")
    counts = (
        dated.where(~F.col("is_test")).groupBy("item_id").agg(F.count("*").cast("int").alias("train_count"), clicks)
    )
    return dated.join(counts, on="item_id", how="left").fillna(0, subset=["train_count", "train_clicks"])

"""Spark: interactions joined with the released IDs become the windows that rankers train and are tested on.

A user's events in time order are cut into windows of ``ranker.max_items`` that overlap by half; each event counts
in the loss of exactly one window, where it has the most history. Training windows hold training events alone;
test windows reach back into them for history.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Interactions, Time
from pipeline.errors import ConfigError, JobError
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.run import Run
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.expressions import filled_codes
from pipeline.on_spark.sources import key_column, read_source, require_columns
from pipeline.release.pointer import require_release
from schemas.semantic_id import Layout
from schemas.tables import RELEASED_IDS, SEQUENCES


def sequences(spark: SparkSession, run: Run) -> None:
    """Replace the rows of ``sequences`` under the released tokenizer.

    Raises:
        ConfigError: there is no interactions section, or a column or expression of it is wrong.
        JobError: nothing is released, or no event could be joined.
    """
    config, lake = run.config, run.lake
    if config.interactions is None:
        raise ConfigError("interactions: the configuration has no such section, and sequences need it")
    release = require_release(lake)
    layout = tokenizer_layout(lake, release.tokenizer)
    tables = spark_delta(spark, lake, config.spark)
    run.metrics["tokenizer"] = release.tokenizer
    run.read(RELEASED_IDS, release.released_ids_version)
    with run.phase("join"), explained(config.interactions):
        events = read_events(spark, config.interactions)
        ids = item_tokens(tables.read(RELEASED_IDS, version=release.released_ids_version), layout)
        joined = events.dropna().join(ids, on="item_id", how="inner").cache()
        _count(run, events, joined)
        cut = joined.agg(F.percentile("time", 1 - config.split.test_fraction)).first()
        if cut is None or cut[0] is None:
            raise JobError("no interaction is with an item that has released IDs: are these the same item ids?")
        dated = with_split(joined, float(cut[0]))
    with run.phase("window"):
        windows = build_windows(dated, config.ranker.max_items, layout.slots)
        rows = windows.withColumn("tokenizer", F.lit(release.tokenizer))
        tables.overwrite(SEQUENCES, rows, where={"tokenizer": release.tokenizer})
        joined.unpersist()
    run.wrote(SEQUENCES)
    _measure(run, tables.read(SEQUENCES, where={"tokenizer": release.tokenizer}))


def read_events(spark: SparkSession, settings: Interactions) -> DataFrame:
    """``user_id``, ``item_id``, ``time`` (ms since 1970) and ``label`` (0 or 1); null where a row does not say."""
    source = read_source(spark, settings.source, "interactions.source")
    columns = {"user": settings.user, "item": settings.item, "time.column": settings.time.column}
    require_columns(source, {f"interactions.{key}": name for key, name in columns.items()})
    try:
        return source.select(
            key_column(source, settings.user).alias("user_id"),
            key_column(source, settings.item).alias("item_id"),
            _milliseconds(settings.time).alias("time"),
            F.expr(settings.label).cast("boolean").cast("tinyint").alias("label"),
        )
    except Exception as error:
        raise ConfigError(f"interactions.label: {settings.label!r}: {str(error).splitlines()[0]}") from error


def item_tokens(released: DataFrame, layout: Layout) -> DataFrame:
    """``item_id``, ``item_hash`` and ``tokens`` (every slot, absent ones filled) of rows of ``released_ids``."""
    return released.select("item_id", "item_hash", filled_codes(layout, layout.absent).alias("tokens"))


def with_split(events: DataFrame, cut: float) -> DataFrame:
    """Events with ``is_test`` (at or after ``cut``) and ``train_count`` of their item."""
    dated = events.withColumn("is_test", F.col("time") >= cut)
    counts = dated.where(~F.col("is_test")).groupBy("item_id").agg(F.count("*").cast("int").alias("train_count"))
    return dated.join(counts, on="item_id", how="left").fillna(0, subset=["train_count"])


def build_windows(events: DataFrame, max_items: int, slots: int) -> DataFrame:
    """The rows of ``sequences`` but for their tokenizer."""
    train = _windows_of(events.where(~F.col("is_test")), max_items, "train", lambda e: F.lit(True))
    test = _windows_of(events, max_items, "test", lambda e: e["is_test"])
    return train.unionByName(test)


def _windows_of(events: DataFrame, max_items: int, split: str, counts: Callable[[Column], Column]) -> DataFrame:
    """Windows over each user's events; ``counts`` says of an event whether the loss may look at it."""
    step = max(1, max_items // 2)
    event = F.struct("time", "item_id", "label", "tokens", "train_count", "is_test", "item_hash")
    users = events.groupBy("user_id").agg(F.sort_array(F.collect_list(event)).alias("events"))
    length = F.size("events")
    last = F.ceil(F.greatest(length - max_items, F.lit(0)) / step).cast("int")
    cuts = F.transform(F.sequence(F.lit(0), last), lambda w: F.slice("events", w * step + 1, F.lit(max_items)))
    windows = users.select("user_id", F.posexplode(cuts).alias("window", "events"))
    fresh = F.when(F.col("window") == 0, 0).otherwise(max_items - step)  # events before it counted one window earlier

    def each(field: str, kind: str) -> Column:
        return F.transform("events", lambda e: e[field]).cast(kind)

    mask = F.transform("events", lambda e, i: (i >= fresh) & counts(e))
    rows = windows.select(
        "user_id",
        F.col("window").cast("int").alias("window"),
        each("item_hash", "array<bigint>").alias("item_hashes"),
        (each("item_id", "array<string>") if split == "test" else F.lit(None).cast("array<string>")).alias("item_ids"),
        F.flatten(F.transform("events", lambda e: e["tokens"])).cast("array<smallint>").alias("tokens"),
        each("label", "array<tinyint>").alias("labels"),
        each("time", "array<bigint>").alias("times"),
        mask.alias("loss_mask"),
        each("train_count", "array<int>").alias("train_count"),
        F.lit(split).alias("split"),
    )
    return rows.where(F.array_contains("loss_mask", True))


def _milliseconds(time: Time) -> Column:
    column = F.col(f"`{time.column}`")
    if time.unit == "timestamp":
        return F.unix_millis(column.try_cast("timestamp"))
    return (column.try_cast("double") * (1000 if time.unit == "s" else 1)).try_cast("bigint")


@contextmanager
def explained(settings: Interactions) -> Iterator[None]:
    """Say which expression a value of the source did not fit."""
    try:
        yield
    except (ArithmeticException, DateTimeException, NumberFormatException) as error:
        said = str(error).splitlines()[0]
        raise JobError(
            f"interactions.label: {settings.label!r} fails on a row: {said}. "
            "Columns of a CSV are strings; cast them, as in try_cast(rating AS double) > 3"
        ) from error


def _count(run: Run, events: DataFrame, joined: DataFrame) -> None:
    total, whole, kept = events.count(), events.dropna().count(), joined.count()
    run.count(rows_in=total, incomplete=total - whole, without_ids=whole - kept, events=kept)


def _measure(run: Run, windows: DataFrame) -> None:
    counted = F.sum(F.size(F.filter("loss_mask", lambda m: m)))
    for row in windows.groupBy("split").agg(F.count("*").alias("n"), counted.alias("events")).toLocalIterator():
        run.count(rows_out=row["n"])
        run.count(**{f"{row['split']}_windows": row["n"], f"{row['split']}_events": row["events"]})

"""Spark: interactions joined with the released IDs become the windows that rankers train and are tested on.

A user's events in time order are cut into windows of ``ranker.max_items`` that overlap by half; each event counts
in the loss of exactly one window, where it has the most history. Training windows hold training events alone;
test windows reach back into them for history.

An item that has left the catalogue keeps its last ID under the released tokenizer.
"""

from collections.abc import Callable
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.event_checks import check_events, check_joined
from pipeline.on_spark.expressions import filled_codes
from pipeline.on_spark.interactions import EVENT, explained, read_events, with_ages, without_repeats
from pipeline.on_spark.sources import readable_files
from pipeline.on_spark.split import split_time, with_split
from pipeline.release.pointer import Release, require_release
from schemas.semantic_id import Layout
from schemas.tables import RELEASED_IDS, SEMANTIC_IDS, SEQUENCES

Rule = Literal["column", "time", "blocks"]

IDS = ("item_hash", "shared", "text", "image")
CARRIED = (  # from events into windows
    *("label", "feedback", "tokens", "train_count", "train_clicks"),
    *("is_test", "item_hash", "request", "known"),
)


def sequences(spark: SparkSession, run: Run) -> None:
    """Replace the rows of ``sequences`` under the released tokenizer.

    Raises:
        ConfigError: there is no interactions section, or a column or expression of it is wrong.
        JobError: nothing is released, or the log is not one to learn from.
    """
    config, lake = run.config, run.lake
    if config.interactions is None:
        raise ConfigError("interactions: the configuration has no such section, and sequences need it")
    release = require_release(lake)
    layout = tokenizer_layout(lake, release.tokenizer)
    tables = spark_delta(spark, lake, config.spark)
    run.metrics |= {"tokenizer": release.tokenizer, "requests": request_rule(config)}
    run.read(RELEASED_IDS, release.released_ids_version)
    with run.phase("join"), explained(config.interactions), readable_files("interactions.source"):
        events = read_events(spark, config.interactions, config.storage_options)
        check_events(run, events, config.interactions)
        single = without_repeats(events.dropna(subset=EVENT)).cache()
        ids = item_tokens(all_ids(tables, lake, release), layout)
        aged = with_ages(single.join(ids, on="item_id", how="inner")).cache()
        check_joined(run, single, aged, ids, config.interactions)
        joined = aged.where(F.col("age") <= config.interactions.max_user_events).drop("age")
        dated = with_split(joined, split_time(joined, config.split))
        dated = with_requests(dated, request_rule(config), config.evaluation.block)
    with run.phase("window"):
        windows = build_windows(dated, config.ranker.max_items, graded=config.interactions.feedback is not None)
        rows = windows.withColumn("tokenizer", F.lit(release.tokenizer))
        tables.overwrite(SEQUENCES, rows, where={"tokenizer": release.tokenizer})
        aged.unpersist()
        single.unpersist()
    run.wrote(SEQUENCES)
    with run.phase("measure"):
        _measure(run, tables.read(SEQUENCES, where={"tokenizer": release.tokenizer}))


def all_ids(tables: SparkDelta, lake: Lake, release: Release) -> DataFrame:
    """The released IDs and, ``gone``, the last IDs under the same tokenizer of items that the release has no more."""
    released = tables.read(RELEASED_IDS, version=release.released_ids_version)
    version = release.semantic_ids_version
    version_there = version if lake.whole(SEMANTIC_IDS, version) else None  # vacuum may have taken it
    rows = tables.read(SEMANTIC_IDS, where={"tokenizer": release.tokenizer}, version=version_there)
    newest = F.max_by(F.struct(*IDS), "run_id").alias("newest")
    last = rows.join(released, on="item_id", how="left_anti").groupBy("item_id").agg(newest)
    gone = last.select("item_id", "newest.*", F.lit(True).alias("gone"))
    return released.select("item_id", *IDS, F.lit(False).alias("gone")).unionByName(gone)


def item_tokens(released: DataFrame, layout: Layout) -> DataFrame:
    """``item_id``, ``item_hash``, ``gone`` and ``tokens`` (every slot, absent ones filled) of :func:`all_ids`."""
    return released.select("item_id", "item_hash", "gone", filled_codes(layout, layout.absent).alias("tokens"))


def request_rule(config: Config) -> Rule:
    """What a request is, see :class:`pipeline.config.models.Evaluation`."""
    rule = config.evaluation.requests
    if rule == "auto":
        return "blocks" if config.interactions is None or config.interactions.request is None else "column"
    return rule


def with_requests(events: DataFrame, rule: Rule, block: int) -> DataFrame:
    """Events with the number of their ``request``, among those of the user, and how many events of the user are of an
    earlier time than the first of it, ``known``; and whether the user is ``tested``, has any test event.

    Events of one time are never in two requests, unless the log says so.
    """
    user = Window.partitionBy("user_id")
    placed = events.withColumn("place", F.row_number().over(user.orderBy("time", "item_id")) - 1)
    timed = placed.withColumn("earlier", F.min("place").over(Window.partitionBy("user_id", "time")))
    number = F.col("earlier")
    if rule == "blocks":
        first = F.min(F.when(F.col("is_test"), F.col("earlier"))).over(user)
        number = F.floor((F.col("earlier") - F.coalesce(first, F.lit(0))) / block)
    elif rule == "column":
        named = F.coalesce(F.concat(F.lit("="), "request"), F.col("earlier").cast("string"))
        timed = timed.withColumn("named", named)
        number = F.min("place").over(Window.partitionBy("user_id", "named"))
    numbered = timed.withColumn("request", number.cast("int"))
    known = F.min("earlier").over(Window.partitionBy("user_id", "request"))
    return numbered.select("*", known.alias("known"), F.max("is_test").over(user).alias("tested"))


def build_windows(events: DataFrame, max_items: int, *, graded: bool) -> DataFrame:
    """The rows of ``sequences`` but for their tokenizer, of :func:`with_requests`; ``feedback`` if ``graded``."""
    training = events.where(~F.col("is_test"))
    train = _windows_of(training, max_items, "train", lambda e: F.lit(True), graded)
    test = _windows_of(events, max_items, "test", lambda e: e["is_test"], graded)
    return train.unionByName(test)


def _windows_of(
    events: DataFrame, max_items: int, split: str, counts: Callable[[Column], Column], graded: bool
) -> DataFrame:
    """Windows over each user's events; ``counts`` says of an event whether the loss may look at it."""
    step = max(1, max_items // 2)
    event = F.struct("time", "item_id", *CARRIED)
    of_user = F.sort_array(F.collect_list(event)).alias("events"), F.max("tested").alias("tested")
    users = events.groupBy("user_id").agg(*of_user)
    length = F.size("events")
    last = F.ceil(F.greatest(length - max_items, F.lit(0)) / step).cast("int")
    cuts = F.transform(F.sequence(F.lit(0), last), lambda w: F.slice("events", w * step + 1, F.lit(max_items)))
    ends = last.alias("last"), F.posexplode(cuts).alias("window", "events")
    windows = users.select("user_id", "tested", *ends)
    fresh = F.when(F.col("window") == 0, 0).otherwise(max_items - step)  # events before it counted one window earlier
    test = split == "test"

    def each(field: str, kind: str, there: bool = True) -> Column:
        values = F.transform("events", lambda e: e[field]) if there else F.lit(None)
        return values.cast(f"array<{kind}>")

    mask = F.transform("events", lambda e, i: (i >= fresh) & counts(e))
    known = F.transform("events", lambda e: F.greatest(e["known"] - F.col("window") * step, F.lit(0)))
    rows = windows.select(
        "user_id",
        F.col("window").cast("int").alias("window"),
        each("item_hash", "bigint").alias("item_hashes"),
        each("item_id", "string", test).alias("item_ids"),
        F.flatten(F.transform("events", lambda e: e["tokens"])).cast("array<smallint>").alias("tokens"),
        each("label", "tinyint").alias("labels"),
        each("feedback", "float", graded).alias("feedback"),
        each("time", "bigint").alias("times"),
        mask.alias("loss_mask"),
        each("train_count", "int").alias("train_count"),
        each("train_clicks", "int").alias("train_clicks"),
        each("request", "int", test).alias("requests"),
        (known if test else F.lit(None)).cast("array<int>").alias("known"),
        ((F.col("window") == F.col("last")) & (F.lit(test) | ~F.col("tested"))).alias("latest"),
        F.lit(split).alias("split"),
    )
    return rows.where(F.array_contains("loss_mask", True))


def _measure(run: Run, windows: DataFrame) -> None:
    counted = F.sum(F.size(F.filter("loss_mask", lambda m: m)))
    for row in windows.groupBy("split").agg(F.count("*").alias("n"), counted.alias("events")).toLocalIterator():
        run.count(rows_out=row["n"])
        run.count(**{f"{row['split']}_windows": row["n"], f"{row['split']}_events": row["events"]})

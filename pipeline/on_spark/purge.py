"""Purge: versions of items that nothing needs any more are dropped, with the IDs and vectors that only they had.

A release is rows of its own, so no release needs an old version of an item. Items go first, then what no kept version
has: whatever is left by a purge that was killed, the next one finds. No current item, none of its IDs and none of its
vectors is touched. The bytes go with the next vacuum.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.errors import JobError
from pipeline.lake.plans import drop_plans
from pipeline.lake.run import Run
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.dropping import drop
from pipeline.on_spark.expressions import content
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, SEMANTIC_IDS, VECTORS

logger = logging.getLogger(__name__)


def purge(spark: SparkSession, run: Run, older_than_days: int, erase: Sequence[str] = ()) -> None:
    """Drop what has been superseded or deleted for longer than the limit; or every trace of the items to ``erase``.

    ``run.counts`` has the rows that went, by table. A file that holds such a row is rewritten, others are not read
    beyond their keys.

    Raises:
        JobError: an item to erase is still in the catalogue.
    """
    tables = spark_delta(spark, run.lake, run.config.spark)
    items = tables.read(ITEMS)
    if erase:
        _refuse_current(items, erase)
        _warn_of_released(tables, erase)
        drop_plans(run.lake)  # done later, one would bring back IDs and vectors that went
        drop(run, tables, ITEMS, items.where(F.col("item_id").isin(*erase)))
        drop(run, tables, QUARANTINE, tables.read(QUARANTINE).where(F.col("item_id").isin(*erase)))
    else:
        drop(run, tables, ITEMS, outlived(items, run.started - timedelta(days=older_than_days)))
    kept = tables.read(ITEMS).where(~F.col("deleted"))
    contents = kept.select("item_id", content(F.col("text_sha"), F.col("image_sha")).alias("content"))
    drop(run, tables, SEMANTIC_IDS, tables.read(SEMANTIC_IDS).join(contents, ["item_id", "content"], "left_anti"))
    shas = kept.select(F.explode(F.array("text_sha", "image_sha")).alias("sha")).dropna()
    drop(run, tables, VECTORS, tables.read(VECTORS).join(shas, "sha", "left_anti"))


def outlived(items: DataFrame, before: object) -> DataFrame:
    """Keys of the versions that a newer one, or their own deletion, has ended before a time.

    Of an item's versions the oldest go first whatever the clocks said, so that a deletion never goes before what it
    deletes.
    """
    versions = items.select("item_id", "run_id", "deleted", "extracted_at").dropDuplicates(["item_id", "run_id"])
    in_order = Window.partitionBy("item_id").orderBy("run_id")
    ended = F.coalesce(F.lead("extracted_at").over(in_order), F.when(F.col("deleted"), F.col("extracted_at")))
    timed = versions.withColumn("ended", ended)
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    latest = timed.withColumn("latest", F.max("ended").over(so_far))
    return latest.where(F.col("ended").isNotNull() & (F.col("latest") < F.lit(before))).select("item_id", "run_id")


def _refuse_current(items: DataFrame, erase: Sequence[str]) -> None:
    [*current] = current_items(items.where(F.col("item_id").isin(*erase))).limit(1).collect()
    if current:
        raise JobError(
            f"--item {current[0]['item_id']}: it is still in the catalogue, and the next night would bring it back: "
            "take it out of the source, run extract, then purge it"
        )


def _warn_of_released(tables: SparkDelta, erase: Sequence[str]) -> None:
    for row in tables.read(RELEASED_IDS).where(F.col("item_id").isin(*erase)).select("item_id").collect():
        logger.warning("purge: item %s is in the current release until the next publish", row["item_id"])

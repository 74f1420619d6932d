"""The table ``quarantine``: what is wrong with items of the newest source, and with items that an encoder failed on."""

from collections.abc import Mapping
from functools import reduce

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.lake.run import Run
from pipeline.on_spark.changes import UNCHANGED
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.prepare import MAX_DETAIL
from schemas.reasons import Reason
from schemas.tables import ITEMS, QUARANTINE, VECTORS

OF_PICTURES = (Reason.MISSING_IMAGE, Reason.IMAGE_NOT_ALLOWED, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_DECODE)
OF_MODALITIES = (Reason.BAD_TEXT, *OF_PICTURES)  # that leave the item with the other modality
KEY = ["item_id", "reason"]


def found_faults(staged: DataFrame, verdicts: DataFrame) -> DataFrame:
    """``item_id``, ``reason``, ``detail`` of everything wrong with the rows that the workers saw, one row a key.

    Rows that are seen every night, since no item came of them, are counted in the detail.
    """
    counted = (F.col("status") == "rejected").alias("counted")
    on_rows = staged.select("item_id", counted, F.explode("faults").alias("fault"))
    conflicts = verdicts.where("status = 'conflicting'").select(
        "item_id",
        F.lit(True).alias("counted"),
        F.lit(Reason.DUPLICATE_ID.value).alias("reason"),
        F.lit("another row has this id with other content, and was taken").alias("detail"),
    )
    faults = on_rows.select("item_id", "counted", "fault.*").unionByName(conflicts).groupBy(*KEY)
    count = F.count_if("counted")
    times = F.when(count > 1, F.concat(F.lit(" ("), count.cast("string"), F.lit(" rows)"))).otherwise("")
    return faults.agg(F.concat(F.min("detail"), times).alias("detail"))


def standing_faults(tables: SparkDelta, compared: DataFrame) -> int:
    """Unchanged rows of the source whose item stands in quarantine for one of its modalities."""
    faulty = tables.read(QUARANTINE).where(F.col("reason").isin(*OF_MODALITIES)).select("item_id").distinct()
    return compared.where(UNCHANGED).join(faulty, on="item_id", how="left_semi").count()


def update_quarantine(
    tables: SparkDelta, compared: DataFrame, staged: DataFrame, verdicts: DataFrame, run: Run
) -> None:
    """Bring ``quarantine`` up to date with the source, in a commit if that changes anything.

    Of items whose rows are all unchanged nothing was looked at, and what stands there stays, but for duplicates: a
    conflict is found every night. Of items that the workers saw it is replaced by what they found; ``encoder_failed``
    stays until text or picture change. Items that a full snapshot lacks have no rows.
    """
    before = tables.read(QUARANTINE).persist(StorageLevel.DISK_ONLY)
    named = before.select("item_id").distinct()
    unchanged = compared.where(UNCHANGED).join(named, on="item_id", how="left_semi").select("item_id").distinct()
    moved = F.bool_or(F.col("status").isin("new", "changed"))
    seen = verdicts.groupBy("item_id").agg(F.when(moved, "moved").otherwise("seen").alias("state"))
    states = unchanged.withColumn("state", F.lit("unchanged")).unionByName(seen)
    of, reason = F.col("state"), F.col("reason")
    stays = (of == "unchanged") & (reason != Reason.DUPLICATE_ID.value)
    stays |= (of == "seen") & (reason == Reason.ENCODER_FAILED.value)
    if not run.config.catalog.full_snapshot:
        stays |= of.isNull()
    kept = before.join(states, on="item_id", how="left").where(stays).drop("state")
    _replace(tables, before, kept, found_faults(staged, verdicts), run)
    before.unpersist()


def quarantine_failed(spark: SparkSession, run: Run, encoders: Mapping[str, str]) -> None:
    """Bring the rows ``encoder_failed`` up to date with the faults in ``vectors``; no commit if that changes nothing.

    Args:
        spark: the session.
        run: of the job that has encoded.
        encoders: by modality the fingerprint of its encoder.

    Items are looked up only if there is a fault.
    """
    tables = spark_delta(spark, run.lake, run.config.spark)
    before = tables.read(QUARANTINE)
    failed = F.col("reason") == Reason.ENCODER_FAILED.value
    faults = [
        tables.read(VECTORS, where={"encoder": encoder})
        .where(F.col("fault").isNotNull())
        .select(F.col("sha").alias(f"{modality}_sha"), F.concat(F.lit(f"{modality}: "), "fault").alias(modality))
        .dropDuplicates([f"{modality}_sha"])
        for modality, encoder in sorted(encoders.items())
    ]
    if before.where(failed).isEmpty() and all(frame.isEmpty() for frame in faults):
        return
    current = current_items(tables.read(ITEMS), *(f"{modality}_sha" for modality in encoders))
    joined = reduce(lambda rows, frame: rows.join(frame, on=frame.columns[0], how="left"), faults, current)
    found = joined.select(
        "item_id",
        F.lit(Reason.ENCODER_FAILED.value).alias("reason"),
        F.left(F.concat_ws("; ", *sorted(encoders)), F.lit(MAX_DETAIL)).alias("detail"),
    ).where("detail != ''")
    _replace(tables, before, before.where(~failed), found, run)


def _replace(tables: SparkDelta, before: DataFrame, kept: DataFrame, found: DataFrame, run: Run) -> None:
    """Make ``quarantine`` the rows that are kept and others that are found; those found before keep their time."""
    key = [*KEY, "detail"]
    found = found.persist(StorageLevel.DISK_ONLY)
    same = before.join(found, on=key, how="left_semi")
    fresh = found.join(before, on=key, how="left_anti").withColumns(
        {
            "source": F.lit(run.config.catalog.source.path),
            "run_id": F.lit(run.run_id),
            "seen_at": F.lit(run.started),
        }
    )
    stay = kept.unionByName(same).persist(StorageLevel.DISK_ONLY)
    if stay.count() != before.count() or not fresh.isEmpty():
        tables.overwrite(QUARANTINE, stay.unionByName(fresh))
    stay.unpersist()
    found.unpersist()

"""The table ``quarantine``: what is wrong with items of the newest source, and with items that an encoder failed on."""

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.lake.run import Run
from pipeline.on_spark.caching import kept_on_disk
from pipeline.on_spark.changes import UNCHANGED
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.prepare import MAX_DETAIL
from schemas.reasons import Reason
from schemas.tables import ITEMS, QUARANTINE, VECTORS

KEY = ["item_id", "reason"]


def found_faults(staged: DataFrame, verdicts: DataFrame) -> DataFrame:
    """``item_id``, ``reason``, ``detail`` of everything wrong with the rows that the workers saw, one row a key.

    Rows that gave way to another one, or that no item came of, are counted in the detail.
    """
    rejected = F.col("status") == "rejected"
    on_rows = staged.select("item_id", rejected.alias("counted"), F.explode("faults").alias("fault"))
    on_rows = on_rows.groupBy("item_id", "fault.reason").agg(
        F.min("fault.detail").alias("detail"), F.count_if("counted").alias("rows")
    )
    left = rejected | (F.col("status") == "conflicting")
    counts = verdicts.groupBy("item_id").agg(F.count_if(left).alias("rows"), F.count_if(~left).alias("taken"))
    conflicts = counts.where("rows > 0 AND taken > 0").select(
        "item_id",
        F.lit(Reason.DUPLICATE_ID.value).alias("reason"),
        F.lit("another row has this id with other content, and was taken").alias("detail"),
        "rows",
    )
    times = F.when(F.col("rows") > 1, F.concat(F.lit(" ("), F.col("rows").cast("string"), F.lit(" rows)")))
    detail = F.concat("detail", F.coalesce(times, F.lit("")))
    return on_rows.unionByName(conflicts).select(*KEY, detail.alias("detail"))


def update_quarantine(
    tables: SparkDelta, compared: DataFrame, staged: DataFrame, verdicts: DataFrame, run: Run
) -> None:
    """Bring ``quarantine`` up to date with the source, in a commit if that changes anything.

    Of items whose rows are all unchanged nothing was looked at, and what stands there stays, but for duplicates: a row
    that conflicts is looked at. Of items that the workers saw it is replaced by what they found; ``encoder_failed``
    stays until text or picture change. Items that a full snapshot lacks have no rows.
    """
    before = tables.read(QUARANTINE)
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
    judged = before.join(states, on="item_id", how="left").withColumn("stays", F.coalesce(stays, F.lit(False)))
    found = found_faults(staged, verdicts)
    if not any(run.counts[name] for name in ("quarantined", "degraded", "fetch_failed")):
        found = found.limit(0)  # as the counts know, and so does Spark's optimiser
    _replace(tables, judged.drop("state"), found, run)


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
    _replace(tables, before.withColumn("stays", ~failed), found, run)


def _replace(tables: SparkDelta, before: DataFrame, found: DataFrame, run: Run) -> None:
    """Make ``quarantine`` the rows of ``before`` that stay, and those found; what was found before keeps its time."""
    rows = before.join(found.withColumn("found", F.lit(True)), on=[*KEY, "detail"], how="full_outer")
    stamp = {"source": run.config.catalog.source.path, "run_id": run.run_id, "seen_at": run.started}
    with kept_on_disk() as keep:
        rows = keep(rows.withColumns({"stays": F.coalesce("found", "stays"), "fresh": F.col("run_id").isNull()}))
        if not rows.where(~F.col("stays") | F.col("fresh")).isEmpty():
            stamped = {name: F.coalesce(name, F.lit(value)) for name, value in stamp.items()}
            tables.overwrite(QUARANTINE, rows.where("stays").withColumns(stamped))

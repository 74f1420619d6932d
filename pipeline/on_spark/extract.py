"""Spark: the raw catalogue becomes rows of ``items`` (new, changed, deleted) and ``quarantine``.

The rows stay on the executors throughout; the driver sees counts. Only pictures of new and changed items are decoded
and written; of the others the bytes are compared.
"""

import logging
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, BinaryType
from pyspark.sql.window import Window

from pipeline.config.models import Catalog
from pipeline.errors import ConfigError, GateRefused
from pipeline.lake.run import Run
from pipeline.on_spark.delta import SparkDelta, spark_delta, spark_uri
from pipeline.on_spark.prepare import MAX_DETAIL, MAX_ID_BYTES, MAX_PATH, PREPARED, Prepare, is_local
from pipeline.on_spark.sources import BAD_ROW, key_column, read_source, readable_files, require_columns, text_column
from pipeline.on_spark.texts import Template
from schemas.reasons import Reason
from schemas.tables import ITEMS, QUARANTINE

logger = logging.getLogger(__name__)


def extract(spark: SparkSession, run: Run) -> None:
    """Bring ``items`` and ``quarantine`` up to date with the source.

    Raises:
        ConfigError: the source or a column that the configuration names is not there.
        GateRefused: a truncated source or a broken image root would do more harm than the gates allow.
    """
    config, lake = run.config, run.lake
    tables = spark_delta(spark, lake, config.spark)
    run.read(ITEMS)
    staging = f"staging/{run.run_id}"
    try:
        with run.phase("prepare"):
            known = live_items(tables.read(ITEMS))
            raw = raw_items(
                read_source(spark, config.catalog.source, "catalog.source", catalogue=True), config.catalog, spark
            )
            prepared = prepare(raw, known, config.catalog)
            uri = spark_uri(f"{lake.uri}/{staging}")
            with readable_files("catalog.source"):
                prepared.write.parquet(uri)
            staged = spark.read.schema(prepared.schema).parquet(uri)
        with run.phase("compare"):
            verdicts = resolve_duplicates(staged)
            deleted = deleted_items(known, staged) if config.catalog.full_snapshot else known.limit(0)
            count(run, verdicts, deleted)
            refuse_harm(run, known.count())
        with run.phase("write"):
            tables.append(ITEMS, new_versions(staged, verdicts, deleted, run))
            run.wrote(ITEMS)
            update_quarantine(tables, found_faults(staged, verdicts), staged, run)
            run.wrote(QUARANTINE)
    finally:
        lake.delete(staging)


def live_items(items: DataFrame) -> DataFrame:
    """The live version of every item: ``item_id``, ``known_hash``, ``known_image_sha``, ``known_image_source``."""
    newest = F.max_by(F.struct("content_hash", "image_sha", "image_source", "deleted"), "run_id").alias("newest")
    return (
        items.groupBy("item_id")
        .agg(newest)
        .where(~F.col("newest.deleted"))
        .select(
            "item_id",
            F.col("newest.content_hash").alias("known_hash"),
            F.col("newest.image_sha").alias("known_image_sha"),
            F.col("newest.image_source").alias("known_image_source"),
        )
    )


def raw_items(source: DataFrame, catalog: Catalog, spark: SparkSession) -> DataFrame:
    """What :class:`Prepare` needs of the source: ``row``, ``item_id``, ``fields`` and the picture's columns."""
    template = _template(catalog)
    _check_root(catalog)
    wanted = {"catalog.id": catalog.id} | {f"catalog.text {{{c}}}": c for c in template}
    if catalog.image is not None:
        wanted["catalog.image.column"] = catalog.image.column
    if not template and catalog.image is None:
        raise ConfigError("catalog: text or image must be given")
    if not source.columns:
        logger.warning("extract: %s is empty: it has neither rows nor columns", catalog.source.path)
        source = spark.createDataFrame([], ", ".join(f"`{column}` string" for column in dict.fromkeys(wanted.values())))
    require_columns(source, wanted)
    # Values are cut here to what the workers would cut them to, so that a batch of huge ones still fits in memory.
    texts = [F.left(_text_column(source, name), F.lit(4 * catalog.max_text_chars)).alias(name) for name in template]
    columns = [
        F.monotonically_increasing_id().alias("row"),
        F.left(key_column(source, catalog.id), F.lit(MAX_ID_BYTES + 1)).alias("item_id"),
        _bad_row(source).alias("bad_row"),
        (F.struct(*texts) if texts else F.lit(None)).alias("fields"),
    ]
    if catalog.image is None:
        return source.select(*columns, F.lit(None).cast("binary").alias("image"), F.lit(0).alias("image_bytes"))
    picture, kind = F.col(f"`{catalog.image.column}`"), source.schema[catalog.image.column].dataType
    if isinstance(kind, BinaryType):
        small = F.when(F.octet_length(picture) <= catalog.image.max_bytes, picture)
        return source.select(*columns, small.alias("image"), F.octet_length(picture).alias("image_bytes"))
    if catalog.image.root is None:
        raise ConfigError(f"catalog.image.root: column {catalog.image.column!r} holds paths, so name their root folder")
    reference = F.left(F.trim(text_column(picture, kind)), F.lit(MAX_PATH + 1))
    rows = source.select(*columns, reference.alias("reference"))
    if is_local(catalog.image.root):
        return rows.withColumns({"image": F.lit(None).cast("binary"), "image_bytes": F.lit(None).cast("bigint")})
    return _with_remote_images(rows, spark_uri(catalog.image.root.rstrip("/")), catalog.image.max_bytes, spark)


def prepare(raw: DataFrame, known: DataFrame, catalog: Catalog) -> DataFrame:
    """Every raw row as a row of :data:`pipeline.on_spark.prepare.PREPARED`."""
    # Rows are small here and grow when their pictures are read, so Spark must not fold them into few partitions.
    tasks = 4 * raw.sparkSession.sparkContext.defaultParallelism
    rows = raw.join(known, on="item_id", how="left").repartition(tasks)
    return rows.mapInArrow(Prepare(catalog), from_arrow_schema(PREPARED))


def resolve_duplicates(staged: DataFrame) -> DataFrame:
    """``row``, ``item_id``, ``status``, ``faulty``: of rows that share an id one goes on, the same one in any order.

    The others become ``repeated`` (equal content) or ``conflicting``. The version that is live already wins.
    """
    order = Window.partitionBy("item_id", F.col("status") == "rejected").orderBy(
        F.col("status") != "unchanged", "content_hash", "row"
    )
    repeated = F.col("content_hash") == F.first("content_hash").over(order)
    again = F.when(repeated, "repeated").otherwise("conflicting")
    verdict = F.when((F.row_number().over(order) > 1) & (F.col("status") != "rejected"), again)
    keys = staged.select("row", "item_id", "status", "content_hash", (F.size("faults") > 0).alias("faulty"))
    return keys.withColumn("status", F.coalesce(verdict, "status")).drop("content_hash")


def deleted_items(known: DataFrame, staged: DataFrame) -> DataFrame:
    """Live items that the source no longer has. A row that was rejected still speaks for its item."""
    return known.join(staged.select("item_id").distinct(), on="item_id", how="left_anti")


def new_versions(staged: DataFrame, verdicts: DataFrame, deleted: DataFrame, run: Run) -> DataFrame:
    """The rows to append to ``items``: new and changed items, and a tombstone for every deleted one."""
    kept = verdicts.where(F.col("status").isin("new", "changed")).select("row")
    columns = ["item_id", "content_hash", "text", "image", "text_sha", "image_sha", "image_source"]
    live = staged.join(kept, on="row", how="left_semi").select(*columns, F.lit(False).alias("deleted"))
    gone = deleted.select("item_id", F.col("known_hash").alias("content_hash"), F.lit(True).alias("deleted"))
    return live.unionByName(gone, allowMissingColumns=True).withColumns(_stamp(run, "extracted_at"))


def found_faults(staged: DataFrame, verdicts: DataFrame) -> DataFrame:
    """``item_id``, ``reason``, ``detail`` of everything wrong with the source, one row a key."""
    on_rows = staged.select("item_id", F.explode("faults").alias("fault")).select("item_id", "fault.*")
    detail = F.lit("another row has this id with other content, and was taken")
    conflicts = verdicts.where("status = 'conflicting'").select(
        "item_id", F.lit(Reason.DUPLICATE_ID.value).alias("reason"), detail.alias("detail")
    )
    times = F.when(F.count("*") > 1, F.concat(F.lit(" ("), F.count("*"), F.lit(" rows)"))).otherwise("")
    faults = on_rows.unionByName(conflicts).groupBy("item_id", "reason")
    return faults.agg(F.concat(F.min("detail"), times).alias("detail"))


def update_quarantine(tables: SparkDelta, faults: DataFrame, staged: DataFrame, run: Run) -> None:
    """Replace what ``quarantine`` says of the items that the source names; commit only if that changes anything."""
    before = tables.read(QUARANTINE)
    same = before.join(faults, on=["item_id", "reason", "detail"], how="left_semi")
    fresh = faults.join(before, on=["item_id", "reason", "detail"], how="left_anti")
    kept = same
    if not run.config.catalog.full_snapshot:
        others = before.join(staged.select("item_id").distinct(), on="item_id", how="left_anti")
        kept = same.unionByName(others)
    stamped = fresh.withColumns(_stamp(run, "seen_at") | {"source": F.lit(run.config.catalog.source.path)})
    if not fresh.isEmpty() or kept.count() != before.count():
        tables.overwrite(QUARANTINE, kept.unionByName(stamped))


def count(run: Run, verdicts: DataFrame, deleted: DataFrame) -> None:
    """Note what became of every row of the source: ``rows_in = rows_out + skipped + quarantined``."""

    def of(*status: str) -> Column:
        return F.count_if(F.col("status").isin(*status))

    counts = verdicts.agg(
        F.count("*").alias("rows_in"),
        of("new", "changed").alias("rows_out"),
        of("new").alias("new"),
        of("changed").alias("changed"),
        of("unchanged", "repeated").alias("skipped"),
        of("rejected", "conflicting").alias("quarantined"),
        F.count_if(F.col("faulty") & (F.col("status") != "rejected")).alias("degraded"),
    ).first()
    run.count(**(counts.asDict() if counts else {}), deleted=deleted.count())


def refuse_harm(run: Run, live: int) -> None:
    """Stop before anything is written when the source looks truncated, or its pictures gone.

    Raises:
        GateRefused: with the figure and the gate that it broke.
    """
    rows, degraded, gone = (run.counts[name] for name in ("rows_in", "degraded", "deleted"))
    gates = run.config.gates
    if degraded > gates.max_degraded_fraction * rows:
        raise GateRefused(
            f"{degraded} of {rows} rows lost a modality to a fault, more than gates.max_degraded_fraction = "
            f"{gates.max_degraded_fraction} allows: is catalog.image.root the right folder, and whole?"
        )
    if gone > gates.max_delete_fraction * live:
        raise GateRefused(
            f"{gone} of {live} live items are absent from {run.config.catalog.source.path}, more than "
            f"gates.max_delete_fraction = {gates.max_delete_fraction} allows: check the source, or raise the limit for "
            "this run"
        )


def _stamp(run: Run, time: str) -> dict[str, Column]:
    return {"run_id": F.lit(run.run_id), time: F.lit(run.started)}


def _template(catalog: Catalog) -> list[str]:
    if catalog.text is None:
        return []
    try:
        columns = Template(catalog.text).columns
    except ValueError as error:
        raise ConfigError(f"catalog.text: {error}") from error
    if not columns:
        raise ConfigError(f"catalog.text: {catalog.text!r} names no column; the form is '{{title}}. {{brand}}'")
    return columns


def _check_root(catalog: Catalog) -> None:
    """A root that is not mounted must stop the job: it would make every item lose its picture."""
    root = catalog.image.root if catalog.image else None
    if root is not None and is_local(root) and not Path(root.removeprefix("file://")).is_dir():
        raise ConfigError(f"catalog.image.root: there is no folder {root}")


def _text_column(source: DataFrame, name: str) -> Column:
    column, kind = F.col(f"`{name}`"), source.schema[name].dataType
    if isinstance(kind, ArrayType):
        return F.make_valid_utf8(F.concat_ws(", ", column.cast("array<string>")))
    return text_column(column, kind)


def _bad_row(source: DataFrame) -> Column:
    """The line, where the source could not be read into columns."""
    if BAD_ROW not in source.columns:
        return F.lit(None).cast("string")
    return F.left(F.make_valid_utf8(F.col(BAD_ROW)), F.lit(MAX_DETAIL))


def _with_remote_images(rows: DataFrame, root: str, max_bytes: int, spark: SparkSession) -> DataFrame:
    """Join the pictures that lie under a root which only Hadoop's connectors reach."""
    reference = F.col("reference")
    uri = F.when(reference.contains("://"), reference).otherwise(F.concat(F.lit(f"{root}/"), reference))
    outside = ~uri.startswith(f"{root}/") | uri.rlike(r"(^|/)\.\.(/|$)")
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(root)
    small = F.when(F.col("length") <= max_bytes, F.col("content"))
    pictures = files.select(F.col("path").alias("uri"), small.alias("image"), F.col("length").alias("image_bytes"))
    named = rows.withColumns({"outside": outside, "uri": F.when(~outside, uri)})
    return named.join(pictures, on="uri", how="left").drop("uri")

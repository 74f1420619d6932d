"""Spark: the raw catalogue becomes rows of ``items`` (new, changed, deleted) and ``quarantine``.

Rows that are those of the current items end in the JVM, and no picture of theirs is opened; Python workers see the
others. Rows stay on the executors throughout; the driver sees counts.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.window import Window

from pipeline.config.file import lasting_settings
from pipeline.config.models import Catalog, Config
from pipeline.lake.run import Run
from pipeline.lake.run_records import RunRecords, unchanged_since
from pipeline.lake.storage import Lake, spark_uri
from pipeline.on_spark.caching import kept_on_disk
from pipeline.on_spark.changes import (
    GONE,
    OF_COUNTS,
    Before,
    SourceTotals,
    Totals,
    compare,
    source_totals,
    totals,
    with_stats,
)
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, files_of, spark_delta
from pipeline.on_spark.expressions import content
from pipeline.on_spark.object_store import reach_store
from pipeline.on_spark.outcome import GAVE_WAY, WRITTEN, count, count_again, refuse_faults_alone, refuse_harm
from pipeline.on_spark.picture_stats import with_listing, with_remote_contents
from pipeline.on_spark.prepare import KNOWN, PREPARED, Prepare
from pipeline.on_spark.quarantine import update_quarantine
from pipeline.on_spark.raw_items import BY_LISTING, raw_items
from pipeline.on_spark.references import host_of, is_url
from pipeline.on_spark.sources import read_source, readable_files
from pipeline.on_spark.vector_columns import append_vectors, vector_readers
from schemas.reasons import Reason
from schemas.tables import ITEMS, QUARANTINE

logger = logging.getLogger(__name__)

BROADCAST_ROWS = 100_000  # pending rows that every task may hold the keys of
TASK_BYTES = 32 * 2**20  # of texts and pictures as the source has them
TASK_ROWS = 64  # fewer are not worth another worker


def extract(spark: SparkSession, run: Run, *, verify_pictures: bool = False) -> None:
    """Bring ``items`` and ``quarantine`` up to date with the source.

    Where it is as the last run found it, rows that no item comes of are not looked at again, unless one of the rows to
    look at has a picture; and where that run had nothing to do, the items are not, either.

    Args:
        spark: the session.
        run: of the job.
        verify_pictures: open every picture, instead of believing ``catalog.image.changed`` and servers.

    Raises:
        ConfigError: the source or a column that the configuration names is not there.
        GateRefused: a truncated source or a broken image root would do more harm than the gates allow.
        JobError: the source cannot be read, changes meanwhile, or holds no row that could become an item.
    """
    config, lake, vectors = run.config, run.lake, run.config.encoders.vector_columns
    tables = spark_delta(spark, lake, config.spark)
    run.read(ITEMS)
    with _staging(lake, run) as uri, kept_on_disk() as keep:
        with run.phase("compare"), readable_files("catalog.source"):
            raw = raw_items(read_catalogue(spark, config), config.catalog, spark, vectors)
            keys = with_stats(raw, config.catalog, spark, keep)
            source = source_totals(keys)
            _tell_of_source(source, config.catalog)
            last = RunRecords(lake).finished("extract")
            since = unchanged_since(
                run, last, [ITEMS, QUARANTINE], source=source.digest, settings=lasting_settings(config)
            )
            if last and since and not verify_pictures and _looked_at_nothing(last, config.catalog):
                count_again(run, since, source.rows, last["counts"])
                return
            current = current_items(tables.read(ITEMS), *KNOWN, "run_id")
            finished, began = (last["run_id"], datetime.fromisoformat(last["started"])) if last else ("", None)
            before = Before(current, tables.read(QUARANTINE), finished, began, run.started)
            compared = compare(keys, before, config.catalog, keep, verify_pictures=verify_pictures)
            found = totals(compared)
            # A picture that could not be read may be readable now, and a bug of ours mended.
            if last and since and not found.pending_pictures and not _has_bugs(tables):
                count_again(run, since, source.rows, last["counts"])
                return
        with run.phase("prepare"), readable_files("catalog.source"):
            staged = spark.createDataFrame([], from_arrow_schema(PREPARED)).limit(0)
            if found.pending:
                work = Prepare(config.catalog, vector_readers(raw, tables, vectors), verify=verify_pictures)
                prepare(raw, compared, found, work, spark).write.parquet(uri)
                staged = spark.read.schema(staged.schema).parquet(uri)
            verdicts = resolve_duplicates(staged)
            verdicts = keep(verdicts) if found.pending else verdicts
            gave_way = count(run, found, verdicts)
            refuse_faults_alone(run, staged, first=not lake.exists(ITEMS))
            refuse_harm(run, staged, current.count() if run.counts["deleted"] else 0)
        with run.phase("write"):
            if vectors and run.counts["rows_out"]:
                append_vectors(tables, written(staged, verdicts, gave_way), vectors, run)
            if run.counts["rows_out"] or run.counts["deleted"] or not lake.exists(ITEMS):
                gone = compared.where(GONE) if config.catalog.full_snapshot else compared.limit(0)
                fetches = config.catalog.image is not None and config.catalog.image.fetch is not None
                rows = written(with_live_pictures(staged, tables) if fetches else staged, verdicts, gave_way)
                tables.append(ITEMS, new_versions(rows, gone, run))
            run.wrote(ITEMS)
            update_quarantine(tables, compared, staged, verdicts, run)
            run.wrote(QUARANTINE)


def _looked_at_nothing(last: dict[str, Any], catalog: Catalog) -> bool:
    """Whether a run had nothing to do, and one that finds all as that did has nothing: no URL falls due by then."""
    return "unchanged_since" in last["metrics"] and (catalog.image is None or catalog.image.fetch is None)


def _has_bugs(tables: SparkDelta) -> bool:
    return not tables.read(QUARANTINE).where(F.col("reason") == Reason.INTERNAL.value).isEmpty()


@contextmanager
def _staging(lake: Lake, run: Run) -> Iterator[str]:
    """A folder of the lake for rows of this run, gone with the block."""
    folder = f"staging/{run.run_id}"
    try:
        yield spark_uri(f"{lake.uri}/{folder}")
    finally:
        lake.delete(folder)


def read_catalogue(spark: SparkSession, config: Config) -> DataFrame:
    """The source of the catalogue, as it is.

    Raises:
        ConfigError: it is not there or cannot be read.
    """
    catalog = config.catalog
    if catalog.image is not None and catalog.image.root is not None:
        reach_store(spark, catalog.image.root, config.storage_options)
    return read_source(
        spark, catalog.source, "catalog.source", ids=[catalog.id], storage_options=config.storage_options
    )


def _tell_of_source(found: SourceTotals, catalog: Catalog) -> None:
    if not found.rows:
        logger.warning("extract: %s is empty: it has no row", catalog.source.path)
    if catalog.image is not None and catalog.image.fetch is None and found.urls:
        said = "extract: %d of %d rows have a URL in column %r, and URLs are not fetched: name their hosts under "
        logger.warning(said + "catalog.image.fetch.hosts", found.urls, found.rows, catalog.image.column)


def prepare(raw: DataFrame, compared: DataFrame, found: Totals, work: Prepare, spark: SparkSession) -> DataFrame:
    """The pending rows as rows of :data:`pipeline.on_spark.prepare.PREPARED`.

    The source is read once more for them; each task has about :data:`TASK_BYTES` of texts and pictures. Where pictures
    are fetched there are no more tasks than run at once, and all URLs of a lane are in one.
    """
    image = work.catalog.image
    slots = spark.sparkContext.defaultParallelism
    tasks = max(found.pending_bytes // TASK_BYTES + 1, min(slots, found.pending // TASK_ROWS))
    if tasks > slots:
        tasks += -tasks % slots  # a round that only some of the cores have work in takes as long as any other
    # Equal rows are of one item and one picture, so one of them has what all of them need.
    wanted = compared.where("pending").dropDuplicates(["row_hash"]).drop(*OF_COUNTS)
    if image is not None and "uri" in wanted.columns and image.changed not in BY_LISTING:
        wanted = with_listing(wanted, str(image.root), spark).drop("listed_stat")
    if "reference" not in raw.columns:
        wanted = wanted.drop("image_bytes")  # the source has them
    rows = raw.drop("named", "text_bytes", *(name for name in wanted.columns if name != "row_hash"))
    if found.pending <= BROADCAST_ROWS:
        rows = rows.join(F.broadcast(wanted), on="row_hash")
    else:
        hashed = wanted.repartition(tasks, "row_hash").hint("shuffle_hash")
        rows = rows.repartition(tasks, "row_hash").join(hashed, on="row_hash")
    if image is not None and "uri" in wanted.columns:
        rows = with_remote_contents(rows, wanted, str(image.root), image.max_bytes, spark)
    place = [F.col("row_hash")]
    if "lane" in raw.columns:
        tasks = min(tasks, slots)
        reference = F.col("reference")
        place = [F.when(is_url(reference), host_of(reference)).otherwise(F.col("row_hash")), F.col("lane")]
    return rows.repartition(tasks, *place).mapInArrow(work, from_arrow_schema(PREPARED))


def resolve_duplicates(staged: DataFrame) -> DataFrame:
    """``row``, ``item_id``, ``status``, ``faulty``, ``unfetched``: of rows that share an id one goes on, the same one
    in any order. A row is faulty that lost a modality; one whose picture was not fetched may have the item's old one.

    The others become ``repeated`` (equal content) or ``conflicting``. The version that is current already wins.
    """
    rank = F.when(F.col("status") == "unchanged", 0).when(F.col("status") == "refreshed", 1).otherwise(2)
    order = Window.partitionBy("item_id", F.col("status") == "rejected").orderBy(rank, "content", "row")
    repeated = F.col("content") == F.first("content").over(order)
    again = F.when(repeated, "repeated").otherwise("conflicting")
    verdict = F.when((F.row_number().over(order) > 1) & (F.col("status") != "rejected"), again)
    keys = staged.select(
        *("row", "item_id", "status"),
        F.exists("faults", lambda fault: ~_of_fetching(fault) | F.col("image_sha").isNull()).alias("faulty"),
        F.exists("faults", _of_fetching).alias("unfetched"),
        content(F.col("text_sha"), F.col("image_sha")).alias("content"),
    )
    return keys.withColumn("status", F.coalesce(verdict, "status")).drop("content")


def written(staged: DataFrame, verdicts: DataFrame, gave_way: int) -> DataFrame:
    """The prepared rows that become new, changed and refreshed items.

    ``gave_way`` says how many of them do not, for another row of their id: rarely so many that pictures are shuffled.
    """
    rows = staged.where(F.col("status").isin(*WRITTEN))
    if not gave_way:
        return rows
    others = verdicts.where(F.col("status").isin(*GAVE_WAY)).select("row")
    return rows.join(F.broadcast(others) if gave_way <= BROADCAST_ROWS else others, on="row", how="left_anti")


def new_versions(rows: DataFrame, gone: DataFrame, run: Run) -> DataFrame:
    """The rows to append to ``items``: those :func:`written`, and a tombstone for every deleted item."""
    columns = ["item_id", "text", "image", "text_sha", "image_sha", "row_hash", "picture_stat"]
    rows = rows.select(*columns, F.lit(False).alias("deleted"))
    tombstones = gone.select("item_id", F.lit(True).alias("deleted"))
    rows = rows.unionByName(tombstones, allowMissingColumns=True)
    return rows.withColumns({"run_id": F.lit(run.run_id), "extracted_at": F.lit(run.started)})


def _of_fetching(fault: Column) -> Column:
    return fault["reason"] == Reason.FETCH_FAILED.value


def with_live_pictures(staged: DataFrame, tables: SparkDelta) -> DataFrame:
    """``staged``, where a row that changed has a picture's hash and not its bytes, with those that ``items`` has.

    The files that hold such a picture are read whole, of the others the keys alone.
    """
    lacking = staged.where("status != 'unchanged' AND image IS NULL AND image_sha IS NOT NULL")
    if lacking.isEmpty():
        return staged
    same = ["item_id", "image_sha"]
    wanted = lacking.select(same)
    items = tables.read(ITEMS, files=files_of(tables.read(ITEMS, located=True), wanted))
    live = items.join(wanted, on=same, how="left_semi").groupBy(same).agg(F.first("image").alias("live"))
    return staged.join(live, on=same, how="left").withColumn("image", F.coalesce("image", "live")).drop("live")

"""Plans: which texts and pictures lack a vector, which items lack an ID, which contents train a tokenizer.

Each is a join of key columns in Spark, so the driver holds counts and names of files. :mod:`pipeline.lake.plans` says
what is written.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.errors import JobError
from pipeline.lake.plans import Plan, plan_folder, save_plan
from pipeline.lake.run import Run
from pipeline.lake.storage import spark_uri
from pipeline.on_spark.caching import kept_on_disk
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, files_of, spark_delta
from pipeline.on_spark.expressions import VECTOR_SHA
from schemas.semantic_id import MODALITIES
from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS

PART_ROWS = 20_000  # of a file of a plan: the work of one task
INPUT = list(VECTORS.key)
SPARE = 1.02  # a sample by hash has about, not exactly, the size that was asked for


def plan_encoding(spark: SparkSession, run: Run, encoders: Mapping[str, str]) -> Plan:
    """The texts and pictures of current items that have no row in ``vectors`` under their encoder.

    Args:
        spark: the session.
        run: of ``encode``.
        encoders: by modality the fingerprint of its encoder; of those alone that are models.

    Returns:
        A plan of rows ``sha``, ``file`` of ``items`` and ``position`` in it; a part is of one modality and one file.
    """
    if not encoders:
        return Plan("encode", run.run_id, 0, 0, {"encoders": {}})
    tables = spark_delta(spark, run.lake, run.config.spark)
    run.read(ITEMS)
    pending = pending_vectors(tables, encoders).persist(StorageLevel.DISK_ONLY)
    chunked = _by_file(pending, run.config.encoders.commit_rows).persist(StorageLevel.DISK_ONLY)
    found = chunked.agg(F.max("chunk").alias("last"), F.sum("rows").alias("rows")).first()
    chunks = 0 if found is None or found["last"] is None else found["last"] + 1
    rows = pending.join(F.broadcast(chunked.drop("rows")), on=["modality", "file"])
    folders, columns = ["chunk", "modality", "part"], ["sha", "file", "position"]
    plan = _write(run, "encode", rows.repartition(*folders), folders, columns, chunks, {"encoders": dict(encoders)})
    chunked.unpersist()
    pending.unpersist()
    return plan


def plan_tokenizing(spark: SparkSession, run: Run, job: str, tokenizer: str, encoders: Mapping[str, str]) -> Plan:
    """The current items that have no ID under ``tokenizer``, with their vectors of its ``encoders``.

    An item waits until each of its modalities has been through its encoder, whether or not that made a vector of it.

    Returns:
        A plan of rows ``item_id``, ``item_hash``, ``content``, ``text_vector`` and ``image_vector``. ``run.counts`` has
        ``rows_in`` (items without an ID) and ``unencoded`` (those of them that wait).
    """
    tables = spark_delta(spark, run.lake, run.config.spark)
    run.read(ITEMS)
    run.read(VECTORS)
    facts = {"tokenizer": tokenizer, "encoders": dict(encoders)}
    columns = ["item_id", "item_hash", "content", "text_vector", "image_vector"]
    with kept_on_disk() as keep:
        pending = keep(pending_ids(tables, tokenizer))
        count = pending.count()
        plan = _write_with_vectors(run, job, tables, pending, "item_hash", columns, count, facts)
    run.count(rows_in=count, unencoded=count - plan.rows)
    return plan


def plan_training(spark: SparkSession, run: Run, encoders: Mapping[str, str], most: int) -> Plan:
    """The contents of current items to train a tokenizer on, with their vectors: about ``most``, chosen by hash.

    Returns:
        A plan in one chunk of rows ``content``, ``text_vector`` and ``image_vector``.

    Raises:
        JobError: no current item has a vector of these encoders.
    """
    tables = spark_delta(spark, run.lake, run.config.spark)
    run.read(ITEMS)
    run.read(VECTORS)
    current = current_items(tables.read(ITEMS), "content", "text_sha", "image_sha").drop("item_id")
    columns = ["content", "text_vector", "image_vector"]
    with kept_on_disk() as keep:
        contents = keep(current.dropDuplicates(["content"]))
        count = contents.count()
        share = min(1.0, SPARE * most / max(1, count))
        numbered = contents.withColumn("number", F.xxhash64("content"))
        chosen = numbered.where(F.pmod("number", F.lit(1 << 30)) < int(share * (1 << 30)))
        facts = {"encoders": dict(encoders), "contents": count}
        plan = _write_with_vectors(
            run, "train-tokenizer", tables, chosen, "number", columns, count, facts, one_chunk=True
        )
    if not plan.rows:
        raise JobError(
            f"no current item has a vector under the configured encoders ({said(encoders)}): run encode first"
        )
    return plan


def pending_vectors(tables: SparkDelta, encoders: Mapping[str, str]) -> DataFrame:
    """``modality`` and ``sha`` of what has no vector, and where it lies in ``items``: ``file`` and ``position``.

    Vectors that came with the catalogue are no work for an encoder, whatever is configured by now.
    """
    current = current_items(tables.read(ITEMS, located=True), "text_sha", "image_sha", "file", "position")
    wanted = _inputs(current, encoders).where(~F.startswith("sha", F.lit(VECTOR_SHA)))
    known = _vectors(tables, encoders).select(INPUT)
    return (
        wanted.join(known, on=INPUT, how="left_anti")
        .groupBy("modality", "sha")
        .agg(F.min(F.struct("file", "position")).alias("at"))
        .select("modality", "sha", "at.*")
    )


def pending_ids(tables: SparkDelta, tokenizer: str) -> DataFrame:
    """``item_id``, ``content``, ``item_hash``, ``text_sha`` and ``image_sha`` of the current items that have no ID."""
    current = current_items(tables.read(ITEMS), "content", "item_hash", "text_sha", "image_sha")
    done = tables.read(SEMANTIC_IDS, where={"tokenizer": tokenizer}).select("item_id", "content")
    return current.join(done, on=["item_id", "content"], how="left_anti")


def with_vectors(
    tables: SparkDelta, rows: DataFrame, encoders: Mapping[str, str], together: Sequence[str]
) -> DataFrame:
    """``rows`` with ``text_vector`` and ``image_vector``, but for those that an encoder has not seen yet.

    Rows are distinct and have ``text_sha`` and ``image_sha``, null for a modality that is absent; those without any
    vector are left out; those equal in ``together`` come in one partition, sorted by it. Of ``vectors``, the files that
    hold a wanted one are read whole, of the others the keys alone. Of two rows of one input, which two plans may have
    made, one with a vector counts. Vectors are shuffled twice: to be one of each, and to be beside their row.
    """
    inputs = _inputs(rows, encoders)
    wanted = inputs.select(INPUT).distinct()
    files = files_of(_vectors(tables, encoders, located=True), wanted)
    stored = _vectors(tables, encoders, files=files).join(wanted, on=INPUT, how="left_semi")
    once = stored.groupBy(INPUT).agg(F.max("vector").alias("vector"), F.lit(True).alias("seen"))
    beside = inputs.join(once, on=INPUT, how="left").repartition(*together)
    names = [*together, *(name for name in rows.columns if name not in together)]
    found = beside.groupBy(names).agg(
        F.bool_and(F.coalesce("seen", F.lit(False))).alias("whole"),
        *(F.max(F.when(F.col("modality") == m, F.col("vector"))).alias(f"{m}_vector") for m in MODALITIES),
    )
    some = F.col("text_vector").isNotNull() | F.col("image_vector").isNotNull()
    return found.where(F.col("whole") & some).drop("whole")


def _inputs(rows: DataFrame, encoders: Mapping[str, str]) -> DataFrame:
    """A row for every text and picture of ``rows``: their columns, ``modality``, and the key of ``vectors``."""
    each = (
        F.struct(
            F.lit(modality).alias("modality"), F.lit(encoder).alias("encoder"), F.col(f"{modality}_sha").alias("sha")
        )
        for modality, encoder in encoders.items()
    )
    inputs = rows.select("*", F.explode(F.array(*each)).alias("input"))
    return inputs.select(*rows.columns, "input.*").dropna(subset=["sha"])


def _vectors(
    tables: SparkDelta, encoders: Mapping[str, str], *, files: Collection[str] | None = None, located: bool = False
) -> DataFrame:
    """The rows of ``vectors`` of these encoders, as :meth:`SparkDelta.read` gives them."""
    each = (
        tables.read(VECTORS, where={"encoder": encoder}, files=files, located=located)
        for encoder in sorted(set(encoders.values()))
    )
    return reduce(DataFrame.unionByName, each)


def said(encoders: Mapping[str, str]) -> str:
    """Encoders in words."""
    return ", ".join(f"{modality} {encoders[modality]}" for modality in MODALITIES)


def _by_file(pending: DataFrame, chunk_rows: int) -> DataFrame:
    """``modality``, ``file``, ``rows``, ``chunk`` and ``part``: whole files, chunks of about ``chunk_rows``."""
    files = pending.groupBy("modality", "file").agg(F.count("*").alias("rows"))
    in_order = Window.partitionBy("modality").orderBy("file")
    before = F.sum("rows").over(in_order.rowsBetween(Window.unboundedPreceding, -1))
    skipped = files.withColumn("nth", F.floor(F.coalesce(before, F.lit(0)) / chunk_rows))
    # Numbers without gaps, also where one file has more rows than a chunk should.
    chunk = F.dense_rank().over(Window.partitionBy("modality").orderBy("nth")) - 1
    part = F.row_number().over(in_order) - 1
    return skipped.select("modality", "file", "rows", chunk.alias("chunk"), part.alias("part"))


def _write_with_vectors(
    run: Run,
    job: str,
    tables: SparkDelta,
    rows: DataFrame,
    number: str,
    columns: list[str],
    count: int,
    facts: dict[str, Any],
    *,
    one_chunk: bool = False,
) -> Plan:
    """Write a plan whose at most ``count`` rows, beside their vectors, are spread over chunks and parts by a hashed
    ``number``."""
    if not count:
        return Plan(job, run.run_id, 0, 0, facts)
    chunks = 1 if one_chunk else -(-count // run.config.encoders.commit_rows)
    parts = -(-count // (chunks * PART_ROWS))
    spread = rows.withColumns(
        {
            "chunk": F.pmod(number, F.lit(chunks)).cast("int"),
            "part": F.pmod(F.floor(F.col(number) / chunks), F.lit(parts)).cast("int"),
        }
    )
    folders = ["chunk", "part"]
    ready = with_vectors(tables, spread, facts["encoders"], together=folders)
    return _write(run, job, ready, folders, columns, chunks, facts)


def _write(
    run: Run, job: str, rows: DataFrame, folders: list[str], columns: list[str], chunks: int, facts: dict[str, Any]
) -> Plan:
    """Write rows into ``folders``, of which the last ones are parts, one file each; rows of one are in a partition."""
    if not chunks:
        return Plan(job, run.run_id, 0, 0, facts)
    uri = spark_uri(f"{run.lake.uri}/{plan_folder(job, run.run_id)}")
    parts = rows.select(*folders, *columns).sortWithinPartitions(*folders)
    writer = parts.write.mode("overwrite").option("maxRecordsPerFile", 0).partitionBy(*folders)
    writer.parquet(uri, compression="none")  # vectors do not get smaller, and plans do not stay
    written = rows.sparkSession.read.schema(parts.schema).parquet(uri).count()  # of the footers
    return save_plan(run.lake, Plan(job, run.run_id, written, chunks, facts))

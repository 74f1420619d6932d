"""What ``extract`` would make of the first rows of a source, by its own functions, with nothing written."""

from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Config
from pipeline.on_spark.caching import kept_on_disk
from pipeline.on_spark.changes import Before, compare, totals, with_stats
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import empty
from pipeline.on_spark.extract import prepare, read_catalogue, resolve_duplicates, written
from pipeline.on_spark.outcome import GAVE_WAY
from pipeline.on_spark.prepare import KNOWN, Prepare
from pipeline.on_spark.quarantine import found_faults
from pipeline.on_spark.raw_items import raw_items
from pipeline.on_spark.sources import readable_files
from pipeline.on_spark.vector_columns import vector_readers
from schemas.tables import ITEMS, QUARANTINE

SHOWN = 5  # items


def check(spark: SparkSession, config: Config, rows: int) -> dict[str, Any]:
    """The first ``rows`` of the catalogue as ``extract`` would take them into an empty lake; no lake is needed or made.

    Returns:
        ``rows`` that were read, by ``status`` what becomes of them, ``texts``, ``pictures`` and ``vectors`` of the
        items, of each reason in ``faults`` how many and an example, ``items``: some of them as they would be stored,
        and ``refused``: whether more rows lost a modality than the gates allow.

    Raises:
        ConfigError: the source or a column that the configuration names is not there.
        JobError: the source cannot be read.
    """
    catalog, vectors = config.catalog, config.encoders.vector_columns
    with kept_on_disk() as keep, readable_files("catalog.source"):
        source = keep(read_catalogue(spark, config).limit(rows))
        raw = raw_items(source, catalog, spark, vectors)
        nothing = current_items(empty(spark, ITEMS, located=False), *KNOWN, "run_id")
        before = Before(nothing, empty(spark, QUARANTINE, located=False), "", None, datetime.now(UTC))
        compared = compare(with_stats(raw, catalog, spark, keep), before, catalog, keep, verify_pictures=False)
        found = totals(compared)
        work = Prepare(catalog, vector_readers(raw, None, vectors))
        staged = keep(prepare(raw, compared, found, work, spark))
        verdicts = keep(resolve_duplicates(staged))
        status = {row["status"]: row["count"] for row in verdicts.groupBy("status").count().collect()}
        items = written(staged, verdicts, sum(status.get(name, 0) for name in GAVE_WAY))
        degraded = verdicts.where("faulty AND status != 'rejected'").count()
        return {
            "rows": found.rows,
            "status": status,
            **_modalities(items),
            "faults": _faults(found_faults(staged, verdicts)),
            "items": _examples(items),
            "refused": degraded > config.gates.max_degraded_fraction * found.rows,
        }


def _modalities(items: DataFrame) -> dict[str, int]:
    has_vector = F.col("text_vector").isNotNull() | F.col("image_vector").isNotNull()
    counts = items.agg(
        F.count("text").alias("texts"), F.count("image").alias("pictures"), F.count_if(has_vector).alias("vectors")
    ).first()
    assert counts is not None  # an aggregate without groups has one row
    return {name: int(n) for name, n in counts.asDict().items()}


def _faults(faults: DataFrame) -> list[dict[str, Any]]:
    """The most frequent reason first, each with one of its items."""
    one = F.min(F.struct("item_id", "detail")).alias("example")
    grouped = faults.groupBy("reason").agg(F.count("*").alias("items"), one).orderBy(F.desc("items"), "reason")
    return [row.asDict(recursive=True) for row in grouped.collect()]


def _examples(items: DataFrame) -> list[dict[str, Any]]:
    widths = {f"{m}_width": F.when(F.col(f"{m}_vector").isNotNull(), F.size(f"{m}_vector")) for m in ("text", "image")}
    columns = ["item_id", "text", F.octet_length("image").alias("image_bytes")]
    shown = items.select("row", *columns, *(width.alias(name) for name, width in widths.items()))
    return [row.asDict() for row in shown.orderBy("row").drop("row").limit(SHOWN).collect()]

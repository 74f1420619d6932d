"""What the lake holds, what is released, what work is waiting and how long it should take."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from pipeline.config.models import Config
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run_records import RunRecords
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.plans import pending_ids, pending_vectors
from pipeline.on_spark.released_ids import candidate_rows, changes
from pipeline.release.pointer import Release, newer_rows, released, tokenizer_of_nights
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, SEMANTIC_IDS, TABLES, Table


def status(spark: SparkSession, lake: Lake, config: Config) -> dict[str, Any]:
    """Tables with their sizes, artefacts, the release, waiting work by job, quarantine by reason, each job's last run.

    Sizes come from the logs, times from run records, the rest is counted by Spark. What waits for ``extract`` only the
    source could tell.
    """
    tables = spark_delta(spark, lake, config.spark)
    current = current_items(tables.read(ITEMS), "content")
    encoders = encoder_fingerprints(config.encoders)
    release = released(lake)
    trained = fingerprints(lake, "tokenizers")
    tokenizer = tokenizer_of_nights(lake)
    records, items = RunRecords(lake), current.count()
    models = {modality: encoders[modality] for modality in config.encoders.models}
    texts_and_pictures = pending_vectors(tables, models).count() if models else 0
    waiting = {"encode": _work(texts_and_pictures, texts_and_pictures, records.rate("encode", "rows_out", "encode"))}
    if tokenizer is not None:
        without_ids = pending_ids(tables, tokenizer).count()
        waiting["tokenize"] = _work(without_ids, without_ids, records.rate("tokenize", "rows_out", "tokenize"))
        unreleased = _unreleased(tables, lake, tokenizer, release) if items or release else 0
        # The gates look at all items, however few of them are new.
        waiting["publish"] = _work(unreleased, items, records.rate("publish", "rows_in", "total"))
    reasons = tables.read(QUARANTINE).groupBy("reason").count().orderBy("reason").collect()
    return {
        "lake": lake.uri,
        "tables": {name: _size(lake, table) for name, table in TABLES.items()},
        "live_items": items,
        "encoders": encoders,
        "tokenizers": trained,
        "rankers": fingerprints(lake, "rankers"),
        "released": {"tokenizer": release.tokenizer, "version": release.version} if release else None,
        "waiting": waiting,
        "quarantine": {row["reason"]: row["count"] for row in reasons},
        "runs": records.last(),
    }


def _work(items: int, rows: int, rate: float | None) -> dict[str, Any]:
    """The number of ``items`` to do and the ``seconds`` that earlier runs make of ``rows``; ``None`` is unknown."""
    return {"items": items, "seconds": 0.0 if not items else round(rows / rate, 3) if rate else None}


def _unreleased(tables: SparkDelta, lake: Lake, tokenizer: str, release: Release | None) -> int:
    """Items whose newest ID readers do not have yet, and deleted ones that they still have."""
    if release is not None and not newer_rows(lake, release):
        return 0
    ids = tables.read(SEMANTIC_IDS, where={"tokenizer": tokenizer})
    rows = candidate_rows(current_items(tables.read(ITEMS), "content"), ids, 0)
    return changes(tables.read(RELEASED_IDS), rows, 0).count()


def _size(lake: Lake, table: Table) -> dict[str, int | None]:
    """Version, and what the newest version holds; files of older versions go with the vacuum."""
    if not lake.exists(table):
        return {"version": None, "rows": 0, "files": 0, "bytes": 0}
    delta = lake.delta(table)
    actions = pa.table(delta.get_add_actions(flatten=True))
    rows, size = (pc.sum(actions[column]).as_py() or 0 for column in ("num_records", "size_bytes"))
    return {"version": delta.version(), "rows": rows, "files": actions.num_rows, "bytes": size}

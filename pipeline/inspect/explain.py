"""Where an item's IDs came from: its versions, vectors, IDs, quarantine, what its codes stand for, neighbours.

What is of one item is looked up by filters, which open the files that may have it; Spark looks at the other items.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import SparkSession

from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.inspect.typical_words import words_and_neighbours
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.expressions import VECTOR_SHA
from pipeline.release.pointer import Release, released
from schemas.semantic_id import MODALITIES
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, RELEASES, SEMANTIC_IDS, VECTORS

VERSION = ["text", "text_sha", "image_sha", "deleted", "run_id", "extracted_at"]


def explain(spark: SparkSession, lake: Lake, config: Config, item_id: str) -> dict[str, Any]:
    """Everything that the lake knows of an item, newest last.

    Raises:
        ConfigError: the lake has never seen the item.
    """
    mine = ds.field("item_id") == item_id
    versions = lake.read(ITEMS, VERSION, where=mine).sort_by("run_id").to_pylist()
    quarantine = lake.read(QUARANTINE, ["reason", "detail", "source", "run_id", "seen_at"], where=mine).to_pylist()
    if not versions and not quarantine:
        raise ConfigError(f"{lake.uri} has never seen an item {item_id!r}: is it the id as the catalogue spells it?")
    _add_vectors(lake, versions)
    ids = _ids(lake, mine)
    release = released(lake)
    columns = ["item_id", "content", "sid", "shared", "text", "image"]
    own = (lake.read(RELEASED_IDS, columns, where=mine).to_pylist() or [None])[0]
    tables = spark_delta(spark, lake, config.spark)
    return {
        "item_id": item_id,
        "state": _state(versions, ids, config, release, own),
        "versions": versions,
        "quarantine": quarantine,
        "ids": [row | {"released": _is_released(row, release, own)} for row in ids],
        "released": release.tokenizer if release else None,
        "release": _release(lake, release) if release else None,
        **(words_and_neighbours(tables, own) if own else {"words": [], "neighbours": []}),
    }


def _add_vectors(lake: Lake, versions: list[dict[str, Any]]) -> None:
    """Each version's ``vectors``: by modality the encoders that have seen its text or picture; and its ``content``."""
    shas = [version[f"{modality}_sha"] for version in versions for modality in MODALITIES]
    wanted = ds.field("sha").isin(pa.array([sha for sha in shas if sha], pa.string()))
    rows = lake.read(VECTORS, ["sha", "encoder", "fault"], where=wanted).sort_by("encoder").to_pylist()
    for version in versions:
        version["content"] = _content(version)
        version["vectors"] = [
            {"modality": modality, "encoder": row["encoder"], "fault": row["fault"]}
            for modality in MODALITIES
            for row in rows
            if row["sha"] == version[f"{modality}_sha"]
        ]


def _content(version: Mapping[str, Any]) -> str:
    """:func:`pipeline.on_spark.expressions.content` of one version."""
    both = "|".join(version[f"{modality}_sha"] or "" for modality in MODALITIES)
    return hashlib.sha256(both.encode()).hexdigest()[:32]


def _ids(lake: Lake, mine: ds.Expression) -> list[dict[str, Any]]:
    """Every ID that the item ever got, with the encoders that its tokenizer was trained on."""
    columns = ["content", "tokenizer", "sid", "item_hash", "run_id"]
    rows = lake.read(SEMANTIC_IDS, columns, where=mine).sort_by("run_id").to_pylist()
    there = set(fingerprints(lake, "tokenizers"))
    encoders = {
        tokenizer: lake.read_json(f"tokenizers/{tokenizer}/config.json")["encoders"] if tokenizer in there else None
        for tokenizer in {row["tokenizer"] for row in rows}
    }
    return [row | {"encoders": encoders[row["tokenizer"]]} for row in rows]


def _is_released(row: dict[str, Any], release: Release | None, own: dict[str, Any] | None) -> bool:
    if release is None or own is None:
        return False
    return bool(row["tokenizer"] == release.tokenizer and row["content"] == own["content"])


def _state(
    versions: list[dict[str, Any]],
    ids: list[dict[str, Any]],
    config: Config,
    release: Release | None,
    own: dict[str, Any] | None,
) -> str:
    """How far the newest version has come, in words."""
    if not versions:
        return "in quarantine, and never was an item"
    newest = versions[-1]
    if newest["deleted"]:
        return "deleted, but readers have it until the next publish" if own else "deleted"
    if release and own and own["content"] == newest["content"]:
        return f"released (release {release.version})"
    stale = "; readers have its earlier version" if own else ""
    if not any(row["content"] == newest["content"] and row["tokenizer"] == _of(release, row) for row in ids):
        return f"waits for {_next_job(newest, config)}{stale}"
    return f"waits for publish{stale}"


def _next_job(newest: dict[str, Any], config: Config) -> str:
    """What must run before a version has an ID: extract, too, where its vectors come with the catalogue, or came."""
    encoders = encoder_fingerprints(config.encoders)
    seen = {(vector["modality"], vector["encoder"]) for vector in newest["vectors"]}
    lacking = [m for m in MODALITIES if newest[f"{m}_sha"] and (m, encoders[m]) not in seen]
    if any(m in config.encoders.vector_columns or newest[f"{m}_sha"].startswith(VECTOR_SHA) for m in lacking):
        return "extract"
    return "encode" if lacking else "tokenize"


def _of(release: Release | None, row: dict[str, Any]) -> str:
    """The tokenizer that an ID must be of to be released next: any while nothing is released."""
    return release.tokenizer if release else row["tokenizer"]


def _release(lake: Lake, release: Release) -> dict[str, Any]:
    columns = ["version", "tokenizer", "action", "items_version", "semantic_ids_version", "run_id", "time"]
    return lake.read(RELEASES, columns, where=ds.field("version") == release.version).to_pylist()[0]

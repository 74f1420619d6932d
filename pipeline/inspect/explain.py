"""Where an item's IDs came from: its versions, vectors, IDs, quarantine, what its codes stand for, neighbours."""

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.inspect.typical_words import ReleasedCodes
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.release.releases import Release, released
from schemas.tables import EMBEDDINGS, ITEMS, QUARANTINE, RELEASES, SEMANTIC_IDS

VERSION = ["content_hash", "text", "text_sha", "image_sha", "deleted", "run_id", "extracted_at"]


def explain(config: Config, item_id: str) -> dict[str, Any]:
    """Everything that the lake knows of an item, newest last.

    Raises:
        ConfigError: the lake has never seen the item.
    """
    lake = Lake(config.lake, config.storage_options)
    mine = ds.field("item_id") == item_id
    versions = lake.read(ITEMS, VERSION, where=mine).sort_by("run_id").to_pylist()
    quarantine = lake.read(QUARANTINE, ["reason", "detail", "source", "run_id", "seen_at"], where=mine).to_pylist()
    if not versions and not quarantine:
        raise ConfigError(f"{lake.uri} has never seen an item {item_id!r}: is it the id as the catalogue spells it?")
    vectors = _vectors(lake, [version["content_hash"] for version in versions])
    versions = [version | {"vectors": vectors.get(version["content_hash"], [])} for version in versions]
    ids = _ids(lake, mine)
    release = released(lake)
    codes = ReleasedCodes(lake, release, item_id) if release else None
    own = codes.own if codes else None
    return {
        "item_id": item_id,
        "state": _state(versions, ids, encoder_fingerprint(config.encoders), release, own),
        "versions": versions,
        "quarantine": quarantine,
        "ids": [row | {"released": _is_released(row, release, own)} for row in ids],
        "released": release.tokenizer if release else None,
        "release": _release(lake, release) if release else None,
        **(codes.describe() if codes else {"words": [], "neighbours": []}),
    }


def _vectors(lake: Lake, contents: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By content the encoder pairs that have encoded it, and which of its modalities there were to encode."""
    columns = ["content_hash", "encoder", "text_sha", "image_sha"]
    rows = lake.read(EMBEDDINGS, columns, where=ds.field("content_hash").isin(pa.array(contents, pa.string())))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.group_by(columns).aggregate([]).sort_by("encoder").to_pylist():
        there = {modality: row[f"{modality}_sha"] is not None for modality in ("text", "image")}
        found.setdefault(row["content_hash"], []).append({"encoder": row["encoder"], **there})
    return found


def _ids(lake: Lake, mine: ds.Expression) -> list[dict[str, Any]]:
    """Every ID that the item ever got, with the encoders that its tokenizer was trained on."""
    columns = ["content_hash", "tokenizer", "sid", "disambiguator", "run_id"]
    rows = lake.read(SEMANTIC_IDS, columns, where=mine).sort_by("run_id").to_pylist()
    there = set(fingerprints(lake, "tokenizers"))
    encoders = {
        tokenizer: lake.read_json(f"tokenizers/{tokenizer}/config.json")["encoder"] if tokenizer in there else None
        for tokenizer in {row["tokenizer"] for row in rows}
    }
    return [row | {"encoder": encoders[row["tokenizer"]]} for row in rows]


def _is_released(row: dict[str, Any], release: Release | None, own: dict[str, Any] | None) -> bool:
    if release is None or own is None:
        return False
    return bool(row["tokenizer"] == release.tokenizer and row["content_hash"] == own["content_hash"])


def _state(
    versions: list[dict[str, Any]],
    ids: list[dict[str, Any]],
    encoder: str,
    release: Release | None,
    own: dict[str, Any] | None,
) -> str:
    """How far the newest version has come, in words."""
    if not versions:
        return "in quarantine, and never was an item"
    newest = versions[-1]
    if newest["deleted"]:
        return "deleted, but readers have it until the next publish" if own else "deleted"
    if release and own and own["content_hash"] == newest["content_hash"]:
        return f"released (release {release.version})"
    stale = "; readers have its earlier version" if own else ""
    if not any(row["content_hash"] == newest["content_hash"] and row["tokenizer"] == _of(release, row) for row in ids):
        there = any(found["encoder"] == encoder for found in newest["vectors"])
        return f"waits for {'tokenize' if there else 'encode'}{stale}"
    return f"waits for publish{stale}"


def _of(release: Release | None, row: dict[str, Any]) -> str:
    """The tokenizer that an ID must be of to be released next: any while nothing is released."""
    return release.tokenizer if release else row["tokenizer"]


def _release(lake: Lake, release: Release) -> dict[str, Any]:
    columns = ["version", "tokenizer", "action", "items_version", "semantic_ids_version", "run_id", "time"]
    return lake.read(RELEASES, columns, where=ds.field("version") == release.version).to_pylist()[0]

"""Where an item's IDs came from: its versions, its quarantine, its IDs, and its neighbours by prefix."""

from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.lake import Lake
from pipeline.releases import Release, released, released_ids
from schemas.tables import ITEMS, QUARANTINE, SEMANTIC_IDS

NEIGHBOURS = 10


def explain(config: Config, item_id: str) -> dict[str, Any]:
    """Everything that the lake knows of an item, newest last.

    Raises:
        ConfigError: the lake has never seen the item.
    """
    lake = Lake(config.lake, config.storage_options)
    mine = ds.field("item_id") == item_id
    columns = ["content_hash", "text", "text_sha", "image_sha", "deleted", "run_id", "extracted_at"]
    versions = lake.read(ITEMS, columns, where=mine).sort_by("run_id").to_pylist()
    quarantine = lake.read(QUARANTINE, ["reason", "detail", "source", "seen_at"], where=mine).to_pylist()
    if not versions and not quarantine:
        raise ConfigError(f"{lake.uri} has never seen an item {item_id!r}: is it the id as the catalogue spells it?")
    ids = lake.read(SEMANTIC_IDS, ["content_hash", "tokenizer", "sid", "disambiguator", "run_id"], where=mine)
    release = released(lake)
    return {
        "item_id": item_id,
        "versions": versions,
        "quarantine": quarantine,
        "ids": ids.sort_by("run_id").to_pylist(),
        "released": release.tokenizer if release else None,
        "neighbours": _neighbours(lake, release, item_id) if release else [],
    }


def _neighbours(lake: Lake, release: Release, item_id: str) -> list[dict[str, Any]]:
    """The released items that share the longest run of shared codes with this one, with their texts."""
    rows = released_ids(lake, release, ["item_id", "content_hash", "sid", "shared"])
    own = rows.filter(ds.field("item_id") == item_id)
    if not own.num_rows:
        return []
    codes = own["shared"][0].as_py()
    for length in range(len(codes), 0, -1):
        match = [pc.equal(pc.list_element(rows["shared"], level), codes[level]) for level in range(length)]
        mask = match[0]
        for level in match[1:]:
            mask = pc.and_(mask, level)
        near = rows.filter(mask).filter(ds.field("item_id") != item_id).sort_by("item_id").slice(0, NEIGHBOURS)
        if near.num_rows:
            return _with_texts(lake, near.select(["item_id", "content_hash", "sid"]).to_pylist(), length)
    return []


def _with_texts(lake: Lake, near: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    wanted = ds.field("item_id").isin([row["item_id"] for row in near]) & ~ds.field("deleted")
    found = lake.read(ITEMS, ["item_id", "content_hash", "text"], where=wanted).to_pylist()
    texts = {(row["item_id"], row["content_hash"]): row["text"] for row in found}
    return [
        {
            "item_id": row["item_id"],
            "sid": row["sid"],
            "shared_codes": length,
            "text": texts[row["item_id"], row["content_hash"]],
        }
        for row in near
    ]

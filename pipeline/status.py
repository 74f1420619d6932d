"""What a lake holds, what is released, and what work is waiting."""

from typing import Any

from pipeline.artefacts import fingerprints
from pipeline.config import Config
from pipeline.encoders import encoder_fingerprint
from pipeline.lake import Lake
from pipeline.live import encoded, live_items, tokenized, without
from pipeline.releases import released
from schemas.tables import TABLES


def status(config: Config) -> dict[str, Any]:
    """Tables with version and rows, artefacts, the release, and how many items wait for which job."""
    lake = Lake(config.lake, config.storage_options)
    tables = {name: _table(lake, name) for name in TABLES}
    live = live_items(lake)
    encoder = encoder_fingerprint(config.encoders)
    release = released(lake)
    unreleased = fingerprints(lake, "tokenizers")
    tokenizer = release.tokenizer if release else unreleased[-1] if unreleased else None
    waiting = {"encode": without(live, encoded(lake, encoder), ["content_hash"]).num_rows}
    if tokenizer:
        waiting["tokenize"] = without(live, tokenized(lake, tokenizer), ["item_id", "content_hash"]).num_rows
    return {
        "lake": lake.uri,
        "tables": tables,
        "live_items": live.num_rows,
        "encoder": encoder,
        "tokenizers": unreleased,
        "rankers": fingerprints(lake, "rankers"),
        "released": {"tokenizer": release.tokenizer, "version": release.version} if release else None,
        "waiting": waiting,
        "runs": lake.names("runs")[-5:],
    }


def _table(lake: Lake, name: str) -> dict[str, int | None]:
    table = TABLES[name]
    if not lake.exists(table):
        return {"version": None, "rows": 0}
    return {"version": lake.version(table), "rows": lake.rows(table)}

"""What the lake holds, what is released, what work is waiting and how long it should take."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.models import Config
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.live import encoded, first_of_each, live_items, tokenized, without
from pipeline.lake.run_records import RunRecords
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.release.releases import Release, newer_rows, released, released_ids
from schemas.tables import ITEMS, QUARANTINE, SEMANTIC_IDS, TABLES, Table

KEYS = ["item_id", "content_hash"]


def status(config: Config) -> dict[str, Any]:
    """Tables with their sizes, artefacts, the release, waiting work by job, quarantine by reason, each job's last run.

    Reads key columns and run records alone. What waits for ``extract`` only the source could tell.
    """
    lake = Lake(config.lake, config.storage_options)
    live = live_items(lake)
    encoder = encoder_fingerprint(config.encoders)
    release = released(lake)
    trained = fingerprints(lake, "tokenizers")
    tokenizer = release.tokenizer if release else trained[-1] if trained else None
    records = RunRecords(lake)
    return {
        "lake": lake.uri,
        "tables": {name: _size(lake, table) for name, table in TABLES.items()},
        "live_items": live.num_rows,
        "encoder": encoder,
        "tokenizers": trained,
        "rankers": fingerprints(lake, "rankers"),
        "released": {"tokenizer": release.tokenizer, "version": release.version} if release else None,
        "waiting": _waiting(lake, live, encoder, tokenizer, release, records),
        "quarantine": _by_reason(lake),
        "runs": records.last(),
    }


def _waiting(
    lake: Lake, live: pa.Table, encoder: str, tokenizer: str | None, release: Release | None, records: RunRecords
) -> dict[str, dict[str, Any]]:
    """By job the number of ``items`` to do and the ``seconds`` that earlier runs make it; ``None`` is unknown."""
    contents = without(first_of_each(live, "content_hash"), encoded(lake, encoder), ["content_hash"]).num_rows
    waiting = {"encode": _work(contents, contents, records.rate("encode", "rows_out", "encode"))}
    if tokenizer is None:
        return waiting
    items = without(live, tokenized(lake, tokenizer), KEYS).num_rows
    waiting["tokenize"] = _work(items, items, records.rate("tokenize", "rows_out", "tokenize"))
    moved = _unreleased(lake, live, tokenizer, release)
    # The gates look at all items, however few of them are new.
    waiting["publish"] = _work(moved, live.num_rows, records.rate("publish", "rows_in", "total"))
    return waiting


def _work(items: int, rows: int, rate: float | None) -> dict[str, Any]:
    return {"items": items, "seconds": 0.0 if not items else round(rows / rate, 3) if rate else None}


def _unreleased(lake: Lake, live: pa.Table, tokenizer: str, release: Release | None) -> int:
    """Items whose newest ID readers do not have yet, and deleted ones that they still have."""
    items_version, ids_version = lake.version(ITEMS), lake.version(SEMANTIC_IDS)
    if items_version is None or ids_version is None:
        return 0
    if release is None:
        return released_ids(lake, Release(0, tokenizer, items_version, ids_version), KEYS).num_rows
    if not newer_rows(lake, release):
        return 0
    newest = replace(release, items_version=items_version, semantic_ids_version=ids_version)
    before, after = (released_ids(lake, which, KEYS) for which in (release, newest))
    return without(after, before, KEYS).num_rows + without(before, live, ["item_id"]).num_rows


def _size(lake: Lake, table: Table) -> dict[str, int | None]:
    """Version, and what the newest version holds; files of older versions go with the vacuum."""
    if not lake.exists(table):
        return {"version": None, "rows": 0, "files": 0, "bytes": 0}
    delta = lake.delta(table)
    actions = pa.table(delta.get_add_actions(flatten=True))
    rows, size = (pc.sum(actions[column]).as_py() or 0 for column in ("num_records", "size_bytes"))
    return {"version": delta.version(), "rows": rows, "files": actions.num_rows, "bytes": size}


def _by_reason(lake: Lake) -> dict[str, int]:
    counts = lake.read(QUARANTINE, ["reason"]).group_by("reason").aggregate([([], "count_all")])
    return {row["reason"]: row["count_all"] for row in counts.sort_by("reason").to_pylist()}

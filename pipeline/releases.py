"""Releases: which IDs readers see. New IDs pass the gates before the pointer moves to them.

A release names a tokenizer and the versions of ``items`` and ``semantic_ids`` that it was checked on, so rows
appended later stay unseen until they are published themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.artefacts import tokenizer_layout
from pipeline.config import Gates
from pipeline.errors import GateRefused, JobError
from pipeline.lake import Lake
from pipeline.live import first_of_each, live_items, only
from pipeline.run import Run
from schemas.semantic_id import Layout
from schemas.tables import ITEMS, RELEASES, SEMANTIC_IDS


@dataclass(frozen=True)
class Release:
    """What readers are to read."""

    version: int
    tokenizer: str
    items_version: int
    semantic_ids_version: int


def released(lake: Lake) -> Release | None:
    """The current release: the one place where readers learn it."""
    rows = lake.read(RELEASES, list(Release.__dataclass_fields__)).sort_by("version").to_pylist()
    return Release(**rows[-1]) if rows else None


def require_release(lake: Lake) -> Release:
    """The current release.

    Raises:
        JobError: nothing is released.
    """
    release = released(lake)
    if release is None:
        raise JobError(f"nothing is released in {lake.uri}: run publish first")
    return release


def released_ids(lake: Lake, release: Release, columns: list[str]) -> pa.Table:
    """``columns`` of the released IDs: those of the items that were live, in their live version."""
    names = list(dict.fromkeys(["item_id", "content_hash", *columns]))
    mine = ds.field("tokenizer") == release.tokenizer
    rows = lake.read(SEMANTIC_IDS, names, where=mine, version=release.semantic_ids_version)
    live = only(rows, live_items(lake, release.items_version), ["item_id", "content_hash"])
    return first_of_each(live, "item_id").select(columns)


def publish(run: Run, tokenizer: str, *, force: bool = False) -> bool:
    """Release the newest IDs under ``tokenizer`` if every gate lets them through; false where nothing is new.

    Raises:
        GateRefused: a figure broke its limit and ``force`` was not given.
        JobError: there are no IDs under ``tokenizer``.
    """
    lake = run.lake
    run.read(ITEMS)
    run.read(SEMANTIC_IDS)
    items_version, ids_version = lake.version(ITEMS), lake.version(SEMANTIC_IDS)
    if items_version is None or ids_version is None:
        raise JobError(f"there are no IDs in {lake.uri}: run tokenize first")
    before = released(lake)
    candidate = Release(before.version + 1 if before else 1, tokenizer, items_version, ids_version)
    if before and asdict(before) | {"version": candidate.version} == asdict(candidate):
        return False
    layout = tokenizer_layout(lake, tokenizer)
    figures = measure(lake, candidate, layout)
    run.count(rows_in=figures["live_items"], rows_out=figures["items_with_ids"])
    run.metrics |= figures
    gates = check(figures, run.config.gates)
    broken = [
        f"{name}: {gate['figure']:.4g}, limit {gate['limit']:.4g}" for name, gate in gates.items() if not gate["ok"]
    ]
    if broken and not force:
        raise GateRefused(f"not released, {'; '.join(broken)}. --force releases all the same, and is recorded")
    _append(run, candidate, "publish", gates | {"forced": bool(broken)})
    return True


def rollback(run: Run) -> Release:
    """Release again what was released before the current release; once more, and it is the one before that.

    Raises:
        JobError: there is no earlier release.
    """
    rows = run.lake.read(RELEASES, [*Release.__dataclass_fields__, "action"]).sort_by("version").to_pylist()
    standing: list[Release] = []
    for row in rows:
        if row.pop("action") == "publish":
            standing.append(Release(**row))
        else:
            standing.pop()
    if len(standing) < 2:
        raise JobError(f"there is no release to go back to in {run.lake.uri}")
    again = replace(standing[-2], version=rows[-1]["version"] + 1)
    _append(run, again, "rollback", {})
    return again


def measure(lake: Lake, candidate: Release, layout: Layout) -> dict[str, Any]:
    """The figures that gates and reports look at, over all live items."""
    columns = ["item_id", "content_hash", "sid", "disambiguator", "shared", "text", "image"]
    rows = released_ids(lake, candidate, columns)
    live = live_items(lake, candidate.items_version).num_rows
    if not rows.num_rows:
        raise JobError(f"no live item has IDs under tokenizer {candidate.tokenizer}: run tokenize first")
    contents = rows.group_by("sid").aggregate([("content_hash", "count_distinct"), ([], "count_all")])
    colliding = pc.sum(contents.filter(ds.field("content_hash_count_distinct") > 1)["count_all"]).as_py() or 0
    sharing = pc.sum(contents.filter(ds.field("count_all") > 1)["count_all"]).as_py() or 0
    pairs = rows.group_by(["sid", "disambiguator"]).aggregate([([], "count_all")])
    used = _codes_used(rows, layout)
    return {
        "live_items": live,
        "items_with_ids": rows.num_rows,
        "coverage": rows.num_rows / live,
        "collision_rate": colliding / rows.num_rows,
        "items_sharing_codes": sharing,
        "items_sharing_an_id": rows.num_rows - pairs.num_rows,
        "codebook_use": min(used.values()),
        "codes_used": used,
        "without_text": rows["text"].null_count / rows.num_rows,
        "without_image": rows["image"].null_count / rows.num_rows,
    }


def check(figures: Mapping[str, Any], gates: Gates) -> dict[str, Any]:
    """Every gate with its figure, its limit, and whether it holds."""
    return {
        "max_collision_rate": _at_most(figures["collision_rate"], gates.max_collision_rate),
        "items_sharing_an_id": _at_most(figures["items_sharing_an_id"], 0),
        "min_codebook_use": _at_least(figures["codebook_use"], gates.min_codebook_use),
        "min_coverage": _at_least(figures["coverage"], gates.min_coverage),
    }


def _codes_used(rows: pa.Table, layout: Layout) -> dict[str, float]:
    """The share of each level's codes that some item uses."""
    used = {}
    for part, levels in zip(("shared", "text", "image"), layout.levels, strict=True):
        codes_NL = np.asarray(pc.list_flatten(rows[part])).reshape(-1, levels) if levels else np.zeros((0, 0))
        for level in range(levels):
            used[f"{part}_{level}"] = len(np.unique(codes_NL[:, level])) / layout.codebook_size
    return {name: share for name, share in used.items() if share} or {"shared_0": 0.0}


def _at_most(figure: float, limit: float) -> dict[str, Any]:
    return {"figure": figure, "limit": limit, "ok": figure <= limit}


def _at_least(figure: float, limit: float) -> dict[str, Any]:
    return {"figure": figure, "limit": limit, "ok": figure >= limit}


def _append(run: Run, release: Release, action: str, gates: Mapping[str, Any]) -> None:
    row = {
        **asdict(release),
        "action": action,
        "gates": json.dumps(gates),
        "run_id": run.run_id,
        "time": datetime.now(UTC),
    }
    run.check_lock()
    run.lake.create(RELEASES)
    run.lake.append(RELEASES, pa.Table.from_pylist([row], schema=RELEASES.schema))
    run.wrote(RELEASES)
    run.metrics |= {"tokenizer": release.tokenizer, "release": release.version}


def export(run: Run, folder: Path) -> Path:
    """Write the released IDs as one Parquet file, with the tokenizer in its schema's metadata.

    Raises:
        JobError: nothing is released.
    """
    release = require_release(run.lake)
    run.read(SEMANTIC_IDS, release.semantic_ids_version)
    columns = ["item_id", "sid", "shared", "text", "image", "disambiguator", "has_text", "has_image"]
    rows = released_ids(run.lake, release, columns).sort_by("item_id")
    run.count(rows_out=rows.num_rows)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "semantic_ids.parquet"
    labelled = rows.replace_schema_metadata({"tokenizer": release.tokenizer, "release": str(release.version)})
    pq.write_table(labelled, file.with_suffix(".part"))
    return file.with_suffix(".part").replace(file)

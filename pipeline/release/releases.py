"""Releases: which IDs readers see. New IDs pass the gates before the pointer moves to them.

A release names a tokenizer and the versions of ``items`` and ``semantic_ids`` that it was checked on, so rows
appended later stay unseen until they are published themselves.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from pipeline.errors import ConfigError, GateRefused, JobError
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.live import first_of_each, live_items, only
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.release.gates import COLUMNS, Snapshot, broken, check, drift, measure, nothing_new
from schemas.tables import ITEMS, RELEASES, SEMANTIC_IDS

logger = logging.getLogger(__name__)


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
    live = live_items(lake, release.items_version)
    return _ids_of(lake, live, release.tokenizer, columns, release.semantic_ids_version)


def snapshot(lake: Lake, release: Release) -> Snapshot:
    """All that gates look at of a release, or of what is to become one."""
    live = live_items(lake, release.items_version)
    rows = _ids_of(lake, live, release.tokenizer, COLUMNS, release.semantic_ids_version)
    return Snapshot(release.tokenizer, live["item_id"], rows)


def _ids_of(lake: Lake, live: pa.Table, tokenizer: str, columns: list[str], version: int) -> pa.Table:
    names = list(dict.fromkeys(["item_id", "content_hash", *columns]))
    rows = lake.read(SEMANTIC_IDS, names, where=ds.field("tokenizer") == tokenizer, version=version)
    return first_of_each(only(rows, live, ["item_id", "content_hash"]), "item_id").select(columns)


def publish(run: Run, tokenizer: str, *, force: bool = False) -> bool:
    """Release the newest IDs under ``tokenizer`` if every gate lets them through; false where nothing is new.

    New is what readers would see: table versions that moved because files were rewritten are nothing new. Drift is
    measured against the release as it stands, which after a rollback is the one gone back to.

    Raises:
        GateRefused: a figure broke its limit, or what is released cannot be read to be compared with, and ``force`` was
            not given.
        JobError: there are no IDs under ``tokenizer``.
    """
    lake = run.lake
    run.read(ITEMS)
    run.read(SEMANTIC_IDS)
    items_version, ids_version = (run.versions["read"][table.name] for table in (ITEMS, SEMANTIC_IDS))
    if items_version is None or ids_version is None:
        raise JobError(f"there are no IDs in {lake.uri}: run tokenize first")
    before = released(lake)
    candidate = Release(before.version + 1 if before else 1, tokenizer, items_version, ids_version)
    if before and before.tokenizer == tokenizer and not newer_rows(lake, before):
        return False
    layout = tokenizer_layout(lake, tokenizer)
    with run.phase("read"):
        found = snapshot(lake, candidate)
        standing = _standing(lake, before, force) if before else None
    blind = before is not None and standing is None
    if not found.rows.num_rows:
        raise JobError(f"no live item has IDs under tokenizer {tokenizer}: run tokenize first")
    with run.phase("measure"):
        figures = measure(found, layout)
        run.count(rows_in=figures["live_items"])
        if before and standing and standing.rows.num_rows:
            drifted = drift(standing, found)
            if nothing_new(standing, found, drifted):
                return False
            figures |= drifted | {"against": {"release": before.version, "tokenizer": before.tokenizer}}
    checked = check(figures, run.config.gates, same_tokenizer=before is None or before.tokenizer == tokenizer)
    faults = broken(checked)
    gates = checked | {"forced": force and (bool(faults) or blind)} | ({"drift": "not measured"} if blind else {})
    run.metrics |= figures | {"gates": gates}
    if faults and not force:
        stays = f"release {before.version} stays" if before else "nothing is released"
        raise GateRefused(f"{stays}: {'; '.join(faults)}. --force releases all the same, and is recorded")
    run.count(rows_out=figures["items_with_ids"])
    _append(run, candidate, "publish", gates)
    return True


def _standing(lake: Lake, release: Release, force: bool) -> Snapshot | None:
    """What readers see now; None where that is gone and ``force`` was given."""
    try:
        return snapshot(lake, release)
    except (OSError, DeltaError) as error:
        why = str(error).strip().splitlines()[0]
        if not force:
            raise GateRefused(
                f"the rows of release {release.version} cannot be read, so no drift from it can be measured ({why}): "
                "bring its files back or, if a vacuum took them, go forward with --force, which is recorded"
            ) from error
        logger.warning("release %d cannot be read, its drift is not measured: %s", release.version, why)
        return None


def rollback(run: Run) -> Release:
    """Release again what was released before the current release; once more, and it is the one before that.

    A rollback that was killed after its commit is not done twice: this run says what that one could not.

    Raises:
        JobError: there is no earlier release, or a vacuum that kept fewer releases has swept its files.
    """
    moved = _moved_by_a_killed_rollback(run)
    if moved is not None:
        return moved
    standing, newest = standing_releases(run.lake), released(run.lake)
    if newest is None or len(standing) < 2:
        raise JobError(f"there is no release to go back to in {run.lake.uri}")
    back = standing[-2]
    if not (run.lake.whole(ITEMS, back.items_version) and run.lake.whole(SEMANTIC_IDS, back.semantic_ids_version)):
        raise JobError(
            f"release {back.version} cannot be read any more in {run.lake.uri}: a vacuum has swept its files, or its "
            "versions have left the tables' logs; publish another tokenizer instead"
        )
    again = replace(back, version=newest.version + 1)
    _append(run, again, "rollback", {})
    return again


def standing_releases(lake: Lake) -> list[Release]:
    """Every release that readers have now or that rollbacks can bring back, the current one last.

    Versions are those of the publishing; a release that was rolled back from is none of them.
    """
    standing: list[Release] = []
    for row in lake.read(RELEASES, [*Release.__dataclass_fields__, "action"]).sort_by("version").to_pylist():
        if row.pop("action") == "publish":
            standing.append(Release(**row))
        else:
            standing.pop()
    return standing


def newer_rows(lake: Lake, release: Release) -> bool:
    """Whether items or IDs have changed since ``release``; to be compacted is no change."""
    return lake.rows_changed(ITEMS, release.items_version) or lake.rows_changed(
        SEMANTIC_IDS, release.semantic_ids_version
    )


def _moved_by_a_killed_rollback(run: Run) -> Release | None:
    """The current release, if the rollback that made it left no record; it gets one."""
    rows = run.lake.read(RELEASES, [*Release.__dataclass_fields__, "action", "run_id"]).sort_by("version").to_pylist()
    if not rows:
        return None
    action, killed = rows[-1].pop("action"), rows[-1].pop("run_id")
    record = f"runs/{killed}/rollback.json"
    if action != "rollback" or killed == run.run_id or "rollback.json" in run.lake.names(f"runs/{killed}"):
        return None
    release = Release(**rows[-1])
    run.metrics |= {"tokenizer": release.tokenizer, "release": release.version, "moved_by": killed}
    noted = {"run_id": killed, "status": "failed", "error": f"killed after it moved the release; noted by {run.run_id}"}
    run.lake.write_json(record, run.record() | noted)
    return release


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

    The file appears whole, in place of an earlier export.

    Raises:
        ConfigError: ``folder`` is none, or has a file of that name that is no export.
        JobError: nothing is released.
    """
    release = require_release(run.lake)
    run.read(SEMANTIC_IDS, release.semantic_ids_version)
    columns = ["item_id", "sid", "shared", "text", "image", "disambiguator", "has_text", "has_image"]
    rows = released_ids(run.lake, release, columns).sort_by("item_id")
    run.count(rows_out=rows.num_rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"--to: {folder} is a file, not a folder") from error
    file = folder / "semantic_ids.parquet"
    if file.exists() and not _is_export(file):
        raise ConfigError(f"--to: {file} is not an export of this program, so it stays: name another folder")
    labelled = rows.replace_schema_metadata({"tokenizer": release.tokenizer, "release": str(release.version)})
    pq.write_table(labelled, file.with_suffix(".part"))
    return file.with_suffix(".part").replace(file)


def _is_export(file: Path) -> bool:
    try:
        return {b"tokenizer", b"release"} <= set(pq.read_schema(file).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False

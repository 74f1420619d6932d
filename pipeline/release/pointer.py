"""The released pointer: which release readers see, and which ones a rollback can bring back.

To move it takes two commits: the rows of ``released_ids``, which carry the row of ``releases`` as metadata, then that
row. Readers of ``released_ids`` see the move at the first; the second may be missing after a kill, and every job that
moves the pointer begins by making up for it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.lake.artefacts import fingerprints, newest
from pipeline.lake.commit import METADATA, append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, RELEASED_IDS, RELEASES, SEMANTIC_IDS

FEW_COMMITS = 16  # that are looked through first for the newest move
MOVE = "release"  # what the row of ``releases`` is called in a commit's metadata


@dataclass(frozen=True)
class Release:
    """What readers are to read, the table versions it was made from, and a digest of its rows in any order."""

    version: int
    tokenizer: str
    items_version: int
    semantic_ids_version: int
    released_ids_version: int
    digest: str


COLUMNS = [field.name for field in fields(Release)]


def released(lake: Lake) -> Release | None:
    """The current release, ``None`` before the first."""
    rows = _rows(lake)
    return _release(rows[-1]) if rows else None


def require_release(lake: Lake) -> Release:
    """The current release.

    Raises:
        JobError: nothing is released.
    """
    release = released(lake)
    if release is None:
        raise JobError(f"nothing is released in {lake.uri}: run publish first")
    return release


def tokenizer_of_nights(lake: Lake) -> str | None:
    """The tokenizer that a night uses: the released one, else the one trained last; ``None`` where there is none."""
    release, trained = released(lake), fingerprints(lake, "tokenizers")
    return release.tokenizer if release else trained[-1] if trained else None


def default_tokenizer(run: Run) -> str:
    """That of nights, for jobs that cannot do without one; so training another changes nothing until it is named.

    Raises:
        JobError: none is trained yet.
    """
    complete_move(run)
    return tokenizer_of_nights(run.lake) or newest(run.lake, "tokenizers")


def standing_releases(lake: Lake) -> list[Release]:
    """Every release that readers have now or that rollbacks can bring back, the current one last.

    Versions are those of the publishing; a release that was rolled back from is none of them.
    """
    return _standing_and_held(lake)[0]


def held_releases(lake: Lake) -> list[Release]:
    """The releases that were rolled back from since the last one was published: their rows are not released again."""
    return _standing_and_held(lake)[1]


def newer_rows(lake: Lake, release: Release) -> bool:
    """Whether items or IDs have changed since ``release`` was made; to be compacted is no change."""
    return lake.rows_changed(ITEMS, release.items_version) or lake.rows_changed(
        SEMANTIC_IDS, release.semantic_ids_version
    )


def move_metadata(run: Run, release: Release, action: str, gates: Mapping[str, Any]) -> dict[str, str]:
    """What the commit of ``released_ids`` carries that moves the pointer: the row of ``releases``.

    Args:
        run: that moves it.
        release: with any ``released_ids_version``; the commit itself has the true one.
        action: ``publish`` or ``rollback``.
        gates: figure and limit of every gate.
    """
    move = {"action": action, "gates": json.dumps(gates), "run_id": run.run_id, "time": datetime.now(UTC).isoformat()}
    return {MOVE: json.dumps(asdict(release) | move)}


def complete_move(run: Run) -> None:
    """Append the row of ``releases`` that the newest move of the pointer carries, unless it is there."""
    lake = run.lake
    row = _newest_move(lake)
    known = released(lake)
    if row is None or (known is not None and row["version"] <= known.version):
        return
    append(lake, RELEASES, pa.Table.from_pylist([row], schema=RELEASES.schema))
    run.wrote(RELEASES)


def last_move(lake: Lake) -> tuple[str, str] | None:
    """How the pointer last moved, ``publish`` or ``rollback``, and the run that moved it."""
    rows = _rows(lake)
    return (rows[-1]["action"], rows[-1]["run_id"]) if rows else None


def _rows(lake: Lake) -> list[dict[str, Any]]:
    return lake.read(RELEASES, [*COLUMNS, "action", "run_id"]).sort_by("version").to_pylist()


def _standing_and_held(lake: Lake) -> tuple[list[Release], list[Release]]:
    standing: list[Release] = []
    held: list[Release] = []
    for row in _rows(lake):
        if row["action"] == "publish":
            standing.append(_release(row))
            held = []
        else:
            held.append(standing.pop())
    return standing, held


def _release(row: Mapping[str, Any]) -> Release:
    return Release(**{name: row[name] for name in COLUMNS})


def _newest_move(lake: Lake) -> dict[str, Any] | None:
    """The row of ``releases`` in the newest commit of ``released_ids`` that has one; compactions have none."""
    if not lake.exists(RELEASED_IDS):
        return None
    delta, looked = lake.delta(RELEASED_IDS), FEW_COMMITS
    while True:
        commits = delta.history(looked)
        for commit in commits:
            said = _metadata(commit)
            if MOVE in said:
                row = json.loads(said[MOVE])
                time = datetime.fromisoformat(row["time"])
                return row | {"time": time, "released_ids_version": commit["version"]}
        if len(commits) < looked:
            return None
        looked *= FEW_COMMITS


def _metadata(commit: Mapping[str, Any]) -> dict[str, str]:
    """Ours of a commit's information: delta-rs keeps it under its key, delta-spark in ``userMetadata``."""
    if METADATA in commit:
        return dict(json.loads(commit[METADATA]))
    said = commit.get("userMetadata") or ""
    return dict(json.loads(said)[METADATA]) if said.startswith(f'{{"{METADATA}"') else {}

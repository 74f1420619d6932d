"""Rollback: readers get back what was released before, by a RESTORE of ``released_ids``."""

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties

from pipeline.errors import JobError
from pipeline.lake.commit import METADATA, commit, fenced, stage, staging_folder
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.release.pointer import (
    Release,
    complete_move,
    last_move,
    move_metadata,
    require_release,
    standing_releases,
)
from schemas.tables import RELEASE_CHANGES, RELEASED_IDS

RECORD = "rollback.json"
NOTED = "noted_by"  # in the record of a rollback that did not come to its end: the run that says what it released
UNDONE = {"added": "removed", "removed": "added", "changed": "changed"}


def rollback(run: Run) -> Release:
    """Release again what was released before the current release; once more, and it is the one before that.

    The release gone back to has a version of its own, and the changes that lead to it are rows of ``release_changes``.
    ``publish`` holds back what was rolled back from until its rows change. A rollback that was killed or failed after
    its first commit is not done twice: this run says what that one could not.

    Raises:
        JobError: there is no earlier release, or a vacuum that kept fewer releases has swept its files.
    """
    lake = run.lake
    complete_move(run)
    if (killed := _killed_rollback(run)) is not None:
        return _noted(run, killed)
    standing = standing_releases(lake)
    if len(standing) < 2:
        raise JobError(f"there is no release to go back to in {lake.uri}")
    back, left = standing[-2:]
    if not lake.whole(RELEASED_IDS, back.released_ids_version):
        raise JobError(
            f"release {back.version} cannot be read any more in {lake.uri}: a vacuum has swept its files, or its "
            "version has left the table's log; publish another tokenizer instead"
        )
    again = replace(back, version=require_release(lake).version + 1)
    _write_undone(lake, left.version, again.version)
    move = move_metadata(run, again, "rollback", {})
    with fenced(lake, RELEASED_IDS) as (delta, transactions):
        properties = CommitProperties(app_transactions=transactions, custom_metadata={METADATA: json.dumps(move)})
        delta.restore(back.released_ids_version, commit_properties=properties)
    run.wrote(RELEASED_IDS)
    complete_move(run)
    release = require_release(lake)
    run.metrics |= {"tokenizer": release.tokenizer, "release": release.version}
    return release


def _write_undone(lake: Lake, undone: int, version: int) -> None:
    """The changes of release ``undone``, each turned round, as those of release ``version``; a file at a time."""
    folder, files = staging_folder(), []
    if lake.exists(RELEASE_CHANGES):
        for fragment in lake.dataset(RELEASE_CHANGES).get_fragments(ds.field("release") == undone):
            rows = fragment.to_table(columns=["item_id", "change", "old_sid", "new_sid"]).to_pylist()
            turned = pa.Table.from_pylist([_turned(row, version) for row in rows], schema=RELEASE_CHANGES.schema)
            files.append(stage(lake, RELEASE_CHANGES, turned, {"release": version}, folder))
    commit(lake, RELEASE_CHANGES, files, overwrite={"release": str(version)})


def _turned(row: dict[str, Any], version: int) -> dict[str, Any]:
    return {
        "release": version,
        "item_id": row["item_id"],
        "change": UNDONE[row["change"]],
        "old_sid": row["new_sid"],
        "new_sid": row["old_sid"],
    }


def _killed_rollback(run: Run) -> str | None:
    """The run that moved the pointer last, if that was a rollback that did not come to its end, nor was noted since."""
    last = last_move(run.lake)
    if last is None or last[0] != "rollback" or last[1] == run.run_id:
        return None
    record = _record(run.lake, last[1])
    return None if record.get("status") == "done" or NOTED in record else last[1]


def _record(lake: Lake, run_id: str) -> dict[str, Any]:
    """Of a rollback; empty where it left none, or one that was cut short."""
    try:
        return dict(lake.read_json(f"runs/{run_id}/{RECORD}"))
    except JobError:
        return {}


def _noted(run: Run, killed: str) -> Release:
    """Give the run that was killed its record, and say what it released."""
    release = require_release(run.lake)
    run.metrics |= {"tokenizer": release.tokenizer, "release": release.version, "moved_by": killed}
    died = run.record() | {"run_id": killed, "status": "failed", "error": "ended after it had moved the release"}
    run.lake.write_json(f"runs/{killed}/{RECORD}", (_record(run.lake, killed) or died) | {NOTED: run.run_id})
    return release

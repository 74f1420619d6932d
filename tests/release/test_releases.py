"""Rollbacks: rules that need no engine."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.release.releases import Release, released, rollback
from schemas.tables import ITEMS, RELEASES, SEMANTIC_IDS


def config(folder: Path) -> Config:
    source = {"path": "items.csv", "format": "csv"}
    return Config.model_validate(
        {"lake": str(folder / "lake"), "catalog": {"source": source, "id": "id", "text": "{t}"}}
    )


def publish(run: Run, tokenizer: str) -> None:
    before = released(run.lake)
    row = {"version": before.version + 1 if before else 1, "tokenizer": tokenizer, "action": "publish", "gates": "{}"}
    row |= {"items_version": 0, "semantic_ids_version": 0, "run_id": "r", "time": run.started}
    for table in (ITEMS, SEMANTIC_IDS, RELEASES):
        run.lake.create(table)
    run.lake.append(RELEASES, pa.Table.from_pylist([row], schema=RELEASES.schema))


def test_rollbacks_go_back_one_release_each(tmp_path: Path) -> None:
    with Run("rollback", config(tmp_path)) as run:
        for tokenizer in "abc":
            publish(run, tokenizer)
        assert [rollback(run).tokenizer for _ in range(2)] == ["b", "a"]
        with pytest.raises(JobError, match="no release to go back to"):
            rollback(run)
        publish(run, "d")
        assert rollback(run) == Release(7, "a", 0, 0)
        assert released(run.lake) == Release(7, "a", 0, 0)


def test_a_rollback_that_was_killed_after_its_commit_is_not_done_twice(tmp_path: Path) -> None:
    killed = Run("rollback", config(tmp_path))
    for tokenizer in "abc":
        publish(killed, tokenizer)
    with killed:
        rollback(killed)
    (tmp_path / "lake" / "runs" / killed.run_id / "rollback.json").unlink()  # as if it had not come so far
    with Run("rollback", config(tmp_path)) as run:
        assert rollback(run) == Release(4, "b", 0, 0)
        assert run.metrics["moved_by"] == killed.run_id
    with Run("rollback", config(tmp_path)) as run:
        assert rollback(run) == Release(5, "a", 0, 0)

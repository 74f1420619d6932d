"""Rollbacks, and what draws the training sample: rules that need no engine."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.errors import JobError
from pipeline.releases import Release, released, rollback
from pipeline.run import Run
from pipeline.tokenizer_training import SAMPLE_DIGITS, SPLIT_DIGITS, fraction
from schemas.tables import RELEASES


def config(folder: Path) -> Config:
    source = {"path": "items.csv", "format": "csv"}
    return Config.model_validate(
        {"lake": str(folder / "lake"), "catalog": {"source": source, "id": "id", "text": "{t}"}}
    )


def publish(run: Run, tokenizer: str) -> None:
    before = released(run.lake)
    row = {"version": before.version + 1 if before else 1, "tokenizer": tokenizer, "action": "publish", "gates": "{}"}
    row |= {"items_version": 1, "semantic_ids_version": 1, "run_id": "r", "time": run.started}
    run.lake.create(RELEASES)
    run.lake.append(RELEASES, pa.Table.from_pylist([row], schema=RELEASES.schema))


def test_rollbacks_go_back_one_release_each(tmp_path: Path) -> None:
    with Run("rollback", config(tmp_path)) as run:
        for tokenizer in "abc":
            publish(run, tokenizer)
        assert [rollback(run).tokenizer for _ in range(2)] == ["b", "a"]
        with pytest.raises(JobError, match="no release to go back to"):
            rollback(run)
        publish(run, "d")
        assert rollback(run) == Release(7, "a", 1, 1)
        assert released(run.lake) == Release(7, "a", 1, 1)


def test_the_held_out_items_are_drawn_apart_from_the_sample() -> None:
    hashes = pa.array([hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)])
    sampled, held_out = fraction(hashes, SAMPLE_DIGITS) < 0.05, fraction(hashes, SPLIT_DIGITS) < 0.05
    assert abs(sampled.mean() - 0.05) < 0.01
    assert abs(held_out[sampled].mean() - 0.05) < 0.03
    assert np.array_equal(fraction(hashes[::-1], SAMPLE_DIGITS)[::-1], fraction(hashes, SAMPLE_DIGITS))

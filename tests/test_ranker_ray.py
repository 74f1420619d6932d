"""Training and scoring on Ray: two workers, uneven data, the way back through an artefact."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

from pipeline.ranker_scoring import predict
from pipeline.ranker_training import train
from ranker.artefact import load
from ranker.config import RankerConfig
from ranker.evaluation import report

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


def test_two_workers_train_and_score(tmp_path: Path) -> None:
    config = RankerConfig(
        dim=16,
        layers=1,
        heads=2,
        max_items=40,
        learning_rate=0.01,
        warmup_steps=5,
        epochs=3,
        batch_items=200,
        workers=2,
    )
    windows = taste_windows(301, seed=1)
    seen: list[int] = []
    ranker, history = train(
        ray.data.from_arrow(windows),
        config,
        LAYOUT,
        TOKENIZER,
        use_gpu=False,
        storage=tmp_path / "runs",
        on_epoch=lambda figures: seen.append(figures.epoch),
    )
    assert seen == [0, 1, 2]
    counted = sum(sum(mask) for mask in windows["loss_mask"].to_pylist())
    assert [epoch.impressions for epoch in history] == [counted] * 3  # an odd number of windows, none dropped
    assert history[-1].loss < history[0].loss

    ranker.save(tmp_path / "ranker", {})
    assert load(tmp_path / "ranker", TOKENIZER).fingerprint == ranker.fingerprint
    test = taste_windows(120, seed=2)
    scored = predict(ray.data.from_arrow(test), lambda: tmp_path / "ranker", tokenizer=TOKENIZER).to_pandas()
    expected: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in test.to_pylist():
        columns = (row[name] for name in ("item_ids", "labels", "train_count", "loss_mask"))
        for item, label, count, counted_in in zip(*columns, strict=True):
            if counted_in:
                expected.setdefault((row["user_id"], item), []).append((label, count))
    assert len(scored) == sum(map(len, expected.values()))
    for impression in scored.itertuples():
        key = (impression.user_id, impression.item_id)
        assert (impression.label, impression.train_count) in expected[key]
    figures = report(pa.Table.from_pandas(scored))
    assert figures["auc"] > 0.7
    assert np.isfinite(figures["log_loss"])

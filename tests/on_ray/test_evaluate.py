"""The job on a lake made by hand: figures by request, references beside them, and two rankers on the same events."""

import json
from pathlib import Path

import numpy as np
import pytest
from scored_shop import scored_shop, stored

from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.training.ranker import evaluate
from ranker.baselines.references import REFERENCES
from ranker.tally import FIGURES
from schemas.tables import SEQUENCES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


@pytest.mark.slow
def test_two_rankers_are_measured_on_the_same_events(tmp_path: Path) -> None:
    config = scored_shop(tmp_path)
    ours, theirs = stored(config, tmp_path / "a"), stored(config, tmp_path / "b", arch="flat", seed=1)
    with Run("evaluate", config, writes=False) as run:
        figures = evaluate(run, ours, against=theirs)
    windows = Lake.open(config.lake).read(SEQUENCES, ["split", "user_id", "loss_mask", "requests"]).to_pylist()
    test = [row for row in windows if row["split"] == "test"]
    assert figures["impressions"] == sum(sum(row["loss_mask"]) for row in test) == run.counts["rows_in"]
    requests = {
        (row["user_id"], n) for row in test for n, m in zip(row["requests"], row["loss_mask"], strict=True) if m
    }
    assert figures["gauc_groups"] + figures["one_class_groups"] == len(requests)
    assert figures["streamed"]["gauc_groups"] + figures["streamed"]["one_class_groups"] == len(test)
    assert list(figures["references"]) == list(REFERENCES)
    other, found = figures["against"], figures["comparison"]
    assert (figures["arch"], other["arch"]) == ("hmat", "flat")
    for name in FIGURES:
        assert found["differences"][name] == pytest.approx(figures[name] - other[name])
        for rule in REFERENCES:
            assert figures["references"][rule][name] == pytest.approx(other["references"][rule][name])
    assert np.isfinite(figures["references"]["like rate"]["gauc"])
    json.dumps(run.record(), allow_nan=False)

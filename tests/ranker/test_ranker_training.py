"""Training learns and repeats itself; the artefact comes back whole or names what is wrong."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

from ranker.architectures import BASELINES, build
from ranker.artefact import ArtefactError, TrainedRanker, load
from ranker.config import RankerConfig
from ranker.training import DivergedError, Training, learning_rate
from ranker.windows import WindowBatch, collate, shuffled_batches, sorted_batches

CPU = torch.device("cpu")
SMALL = {"dim": 16, "layers": 1, "heads": 2, "max_items": 40, "warmup_steps": 5, "learning_rate": 0.01}


def trained(config: RankerConfig, windows: pa.Table) -> tuple[TrainedRanker, list[float]]:
    training = Training(build(config, LAYOUT), config, LAYOUT, len(windows))
    while not training.finished:
        epoch = len(training.progress.epochs)
        batches = shuffled_batches([windows], LAYOUT, config.batch_items, np.random.default_rng([config.seed, epoch]))
        assert training.run_epoch(batches).windows == len(windows)
    losses = [epoch.loss for epoch in training.progress.epochs]
    return TrainedRanker(config, LAYOUT, TOKENIZER, training.weights()), losses


def test_training_finds_good_items_and_generous_users() -> None:
    ranker, losses = trained(RankerConfig(epochs=3, batch_items=200, **SMALL), taste_windows(300, seed=1))
    assert losses[-1] < losses[0]
    batch = collate(taste_windows(200, seed=2), LAYOUT)
    late = batch.loss_mask & (torch.arange(batch.labels.shape[1]) >= 6)
    model = ranker.model()
    with torch.inference_mode():
        knowing, blind = (model(batch.tokens, batch.items, past)[late] for past in (batch.labels, 0 * batch.labels))
    assert roc_auc_score(batch.labels[late], knowing) > 0.8
    assert roc_auc_score(batch.labels[late], blind) > 0.65  # the codes alone
    assert roc_auc_score(batch.labels[late], blind) < 0.77


@pytest.mark.parametrize("arch", BASELINES)
def test_a_baseline_finds_them_too(arch: str) -> None:
    config = RankerConfig.model_validate({"arch": arch, "epochs": 3, "batch_items": 200} | SMALL)
    ranker, losses = trained(config, taste_windows(300, seed=1))
    assert losses[-1] < losses[0]
    batch = collate(taste_windows(200, seed=2), LAYOUT)
    late = batch.loss_mask & (torch.arange(batch.labels.shape[1]) >= 6)
    model = ranker.model()
    with torch.inference_mode():
        knowing, blind = (model(batch.tokens, batch.items, past)[late] for past in (batch.labels, 0 * batch.labels))
    assert roc_auc_score(batch.labels[late], knowing) > 0.8
    assert roc_auc_score(batch.labels[late], blind) < 0.77


def test_a_training_that_diverges_says_so() -> None:
    windows = taste_windows(40, seed=1)
    config = RankerConfig(**SMALL | {"learning_rate": 1, "max_gradient_norm": 1e30, "warmup_steps": 0})
    with pytest.raises(DivergedError, match=r"its loss is \d.* lower ranker.learning_rate \(1.0\)"):
        trained(config, windows)
    training = Training(build(config, LAYOUT), config, LAYOUT, len(windows))
    next(training.model.parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="its loss is nan at step 0"):
        training.run_epoch(sorted_batches([windows], LAYOUT, 100))


def test_a_loss_of_what_is_watched_that_is_no_number_is_a_divergence() -> None:
    windows = taste_windows(40, seed=1)
    config = RankerConfig(**SMALL | {"patience": 2})
    training = Training(build(config, LAYOUT), config, LAYOUT, len(windows))

    def watched() -> Iterator[WindowBatch]:
        next(training.model.parameters()).data.fill_(math.nan)  # as the last step of a pass may leave weights
        return sorted_batches([windows], LAYOUT, 100)

    with pytest.raises(DivergedError, match="its loss is nan at step"):
        training.run_epoch(sorted_batches([windows], LAYOUT, 100), watched)


def test_training_repeats_itself() -> None:
    config = RankerConfig(epochs=1, batch_items=300, **SMALL)
    windows = taste_windows(40, seed=1)
    assert trained(config, windows)[0].fingerprint == trained(config, windows)[0].fingerprint
    other = config.model_copy(update={"seed": 1})
    assert trained(config, windows)[0].fingerprint != trained(other, windows)[0].fingerprint


def test_the_schedule_warms_up_and_decays_to_zero() -> None:
    config = RankerConfig(warmup_steps=9, learning_rate=0.1)
    assert learning_rate(0, 0, 100, config) == pytest.approx(0.01)
    assert learning_rate(20, 50, 100, config) == pytest.approx(0.05)
    assert learning_rate(40, 100, 100, config) == pytest.approx(0)


def test_an_artefact_comes_back_whole(tmp_path: Path) -> None:
    config = RankerConfig(**SMALL)
    ranker = TrainedRanker(config, LAYOUT, TOKENIZER, build(config, LAYOUT).state_dict())
    ranker.save(tmp_path, {"auc": 0.5})
    again = load(tmp_path, TOKENIZER)
    assert (again.config, again.layout, again.tokenizer) == (config, LAYOUT, TOKENIZER)
    assert again.fingerprint == ranker.fingerprint
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"auc": 0.5}
    batch = collate(taste_windows(3, seed=0), LAYOUT)
    assert torch.equal(
        again.model()(batch.tokens, batch.items, batch.labels),
        ranker.model()(batch.tokens, batch.items, batch.labels),
    )


def test_a_wrong_artefact_is_named(tmp_path: Path) -> None:
    config = RankerConfig(**SMALL)
    ranker = TrainedRanker(config, LAYOUT, TOKENIZER, build(config, LAYOUT).state_dict())
    ranker.save(tmp_path, {})
    with pytest.raises(ArtefactError, match=f"{TOKENIZER}.*feedbeef"):
        load(tmp_path, "feedbeef")
    stored = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(stored.replace(TOKENIZER, "feedbeef"))
    with pytest.raises(ArtefactError, match="damaged"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(stored)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(ArtefactError, match="damaged"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ArtefactError, match="not a ranker"):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors is missing"):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [{"dim": 36, "heads": 4}, {"epochs": 0}, {"arch": "gru"}, {"layer": 2}])
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RankerConfig(**wrong)


def test_heads_that_no_gpu_takes_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"heads of 512 numbers, .* takes 256 at most: set ranker.heads to 4 or"):
        RankerConfig(dim=1024, heads=2)
    with pytest.raises(ValidationError, match=r"set ranker.heads to 5 or more"):
        RankerConfig(dim=1020, heads=3)
    assert RankerConfig(dim=1024, heads=2, arch="sasrec").heads == 2

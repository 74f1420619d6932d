"""Training and scoring on Ray: workers that die, uneven data, early stopping, the way back through an artefact."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
import torch
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

import pipeline.on_ray.training.runs as runs
from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from pipeline.on_ray.training import ranker_workers, scoring
from pipeline.on_ray.training.ranker_workers import train
from pipeline.on_ray.training.scoring import fit_references, predict, tallied
from ranker.architectures import build
from ranker.artefact import COLLABORATIVE, VOCABULARY, TrainedRanker, load
from ranker.config import CollaborativeConfig, ItemIdConfig, RankerConfig
from ranker.evaluation import measure, report, tallies
from ranker.factors import ItemFactors
from ranker.training import EpochFigures, loss_sum
from ranker.training_events import factors_of, training_events
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import WindowError, collate, counted_between

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


SETTINGS = {
    "dim": 16,
    "layers": 1,
    "heads": 2,
    "max_items": 40,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "epochs": 3,
    "batch_items": 200,
    "request_share": 0.5,
    "shuffle_windows": 64,
    "workers": 2,
    "item_id": {"dropout": 0.1},
}
CHECKPOINTS = "checkpoints/ranker"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train looks after its workers ten times a second, and every step leaves a checkpoint."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0)


def trained(
    folder: Path, windows: pa.Table, progress: runs.Progress | None = None, **settings: Any
) -> tuple[TrainedRanker, list[EpochFigures]]:
    config = RankerConfig.model_validate(SETTINGS | settings)
    dataset = ray.data.from_arrow([windows.slice(start, 50) for start in range(0, max(1, len(windows)), 50)])
    return train(dataset, config, LAYOUT, TOKENIZER, lake=Lake(str(folder)), checkpoints=CHECKPOINTS, progress=progress)


@pytest.fixture(scope="module")
def undisturbed(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[EpochFigures]]:
    """The fingerprint of a ranker that two workers trained, and its passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHECKPOINT_SECONDS", 3600)
        ranker, history = trained(tmp_path_factory.mktemp("undisturbed"), taste_windows(151, seed=1))
    return ranker.fingerprint, history


def passes(history: list[EpochFigures]) -> list[tuple[float, int, int]]:
    return [(epoch.loss, epoch.impressions, epoch.steps) for epoch in history]


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 5])
def test_dead_workers_change_nothing(
    undisturbed: tuple[str, list[EpochFigures]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """Either worker dies at random steps, of the first pass as of the last."""
    steps = sum(epoch.steps for epoch in undisturbed[1])
    rng = np.random.default_rng()
    deadly = {int(step): int(rng.integers(2)) for step in rng.choice(np.arange(1, steps), deaths, replace=False)}

    def train_worker(told: dict[str, Any]) -> Any:
        import os

        import ray.train

        from pipeline.on_ray.training import ranker_workers as theirs

        class Mortal(theirs.Training):
            def _step(self, *arguments: object) -> None:
                step = self.progress.all_steps
                marker = tmp_path / f"died-{step}"
                if deadly.get(step) == ray.train.get_context().get_world_rank() and not marker.exists():
                    marker.touch()
                    os._exit(1)
                super()._step(*arguments)  # type: ignore[arg-type]

        theirs.Training = Mortal  # type: ignore[misc]
        return theirs._train_worker(told)

    monkeypatch.setattr(ranker_workers, "_train_worker", train_worker)
    told: list[float] = []
    ranker, history = trained(tmp_path, taste_windows(151, seed=1), lambda done, *_: told.append(done))
    assert len(list(tmp_path.glob("died-*"))) == deaths, deadly
    assert passes(history) == passes(undisturbed[1]), deadly
    assert ranker.fingerprint == undisturbed[0], deadly
    assert told[-1] == 3


@pytest.mark.slow
def test_a_run_goes_on_from_what_an_earlier_one_left(
    undisturbed: tuple[str, list[EpochFigures]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's workers die once and may not come back."""

    def train_worker(told: dict[str, Any]) -> Any:
        from pipeline.on_ray.training import ranker_workers as theirs

        class Mortal(theirs.Training):
            def _step(self, *arguments: object) -> None:
                if len(self.progress.epochs) == 1 and self.progress.steps == 4:
                    raise OSError("the disk is gone")
                super()._step(*arguments)  # type: ignore[arg-type]

        theirs.Training = Mortal  # type: ignore[misc]
        return theirs._train_worker(told)

    windows = taste_windows(151, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(ranker_workers, "_train_worker", train_worker)
        patch.setattr(runs, "MAX_FAILURES", 0)
        with pytest.raises(JobError, match=rf"^training failed: .*the disk is gone.*; {runs.AGAIN}$"):
            trained(tmp_path, windows)
    told: list[float] = []
    ranker, history = trained(tmp_path, windows, lambda done, *_: told.append(done))
    assert told[0] > 1
    assert passes(history) == passes(undisturbed[1])
    assert ranker.fingerprint == undisturbed[0]


def test_what_cannot_be_trained_is_said_once(tmp_path: Path) -> None:
    windows = taste_windows(40, seed=1)
    with pytest.raises(WindowError, match=r"a window holds .* items where ranker.max_items is 10"):
        trained(tmp_path, windows, max_items=10)
    with pytest.raises(JobError, match="there is no window to train:"):
        trained(tmp_path, windows.slice(0, 0))
    with pytest.raises(JobError, match="no item has 1000 training events: lower min_events"):
        trained(tmp_path, windows, item_id={"min_events": 1000})


@pytest.mark.parametrize(("windows", "workers", "rows"), [(1, 4, 4), (3, 8, 8), (5, 2, 6), (4, 2, 4)])
def test_every_worker_gets_a_window_and_none_counts_twice(windows: int, workers: int, rows: int) -> None:
    table = taste_windows(windows, seed=1)
    evenly = ranker_workers._evenly(ray.data.from_arrow(table), windows, workers)
    masks = [row["loss_mask"] for row in evenly.take_all()]
    assert len(masks) == rows
    assert sum(map(sum, masks)) == sum(map(sum, table["loss_mask"].to_pylist()))


@pytest.mark.slow
def test_a_training_that_diverges_ends_with_one_line(tmp_path: Path) -> None:
    windows = taste_windows(40, seed=1)
    with pytest.raises(JobError, match=r"^ranker: the training diverged, its loss is \d.* lower ranker.learning_rate"):
        trained(tmp_path, windows, learning_rate=1, max_gradient_norm=1e30, warmup_steps=0, epochs=1, workers=1)


@pytest.mark.slow
def test_patience_ends_a_training_with_its_best_pass(tmp_path: Path) -> None:
    windows = taste_windows(60, seed=1)
    ranker, history = trained(tmp_path, windows, epochs=40, patience=2, learning_rate=0.1, workers=1, dim=32)
    losses = [epoch.validation for epoch in history if epoch.validation is not None]
    assert len(losses) == len(history) < 40
    assert int(np.argmin(losses)) == len(losses) - 3
    columns = (windows[name].to_pylist() for name in ("times", "loss_mask"))
    times = np.concatenate([np.array(t)[np.array(mask)] for t, mask in zip(*columns, strict=True)])
    border = int(times.max() - 0.1 * (times.max() - times.min()))
    watched = collate(counted_between(windows, since=border), LAYOUT)
    with torch.inference_mode():
        logits = ranker.model()(watched.tokens, watched.items, watched.labels)
    assert loss_sum(logits, watched).item() / watched.impressions == pytest.approx(min(losses), rel=1e-4)
    assert history[0].impressions + watched.impressions == sum(map(sum, windows["loss_mask"].to_pylist()))


@pytest.mark.slow
def test_graded_feedback_is_standardised_by_that_of_training(tmp_path: Path) -> None:
    windows = taste_windows(40, seed=1)
    rows = windows.to_pylist()
    for row in rows:
        row["feedback"] = [None if n % 7 == 0 else 30.0 + 10 * label for n, label in enumerate(row["labels"])]
    graded = pa.Table.from_pylist(rows, windows.schema)
    ranker, _ = trained(tmp_path, graded, feedback=True, workers=1, epochs=1)
    counted = [
        value
        for row in rows
        for value, in_loss in zip(row["feedback"], row["loss_mask"], strict=True)
        if in_loss and value is not None
    ]
    assert float(ranker.state["feedback.mean"]) == pytest.approx(np.mean(counted), rel=1e-5)
    assert float(ranker.state["feedback.deviation"]) == pytest.approx(np.std(counted), rel=1e-4)
    assert ranker.state["feedback.graded_E"].abs().sum() > 0
    with pytest.raises(JobError, match=r"ranker.feedback is set, but the sequences have none"):
        trained(tmp_path, windows, feedback=True)


@pytest.mark.slow
def test_factors_of_items_are_those_of_the_training_windows(tmp_path: Path) -> None:
    windows = taste_windows(60, seed=1)
    settings = {"factors": 2, "content_components": 0, "met_components": 2}
    ranker, history = trained(tmp_path, windows, collaborative=settings, epochs=1)
    assert history[0].windows == 60
    config = CollaborativeConfig.model_validate(settings)
    factors = factors_of(training_events([windows]), config, None, ranker.config.seed)
    kept = ItemFactors.of(ranker.state, COLLABORATIVE)
    assert kept is not None
    for name, tensor in factors.kept().items():
        torch.testing.assert_close(kept.kept()[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    assert "collaborative.apart_GIF" not in ranker.state


@pytest.mark.slow
def test_tallies_of_many_blocks_are_those_of_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the windows of a user in several blocks, and requests that go over from one window to the next."""
    config = RankerConfig.model_validate(SETTINGS)
    model = build(config, LAYOUT, hash_I=torch.arange(3))
    TrainedRanker(config, LAYOUT, TOKENIZER, model.state_dict()).save(tmp_path / "ranker", {})
    test = pa.concat_tables(taste_windows(60, seed=seed) for seed in (2, 3, 4))
    blocks = ray.data.from_arrow([test.slice(start, 20) for start in range(0, len(test), 20)])
    fitted = fit_references(ray.data.from_arrow(taste_windows(30, seed=5)))
    scored = predict(blocks, lambda: nullcontext(tmp_path / "ranker"), tokenizer=TOKENIZER, references=fitted)
    monkeypatch.setattr(scoring, "TALLIED_WINDOWS", 40)
    found = tallied(scored, len(test), fitted)
    whole = tallies(pa.concat_tables(ray.get(scored.to_arrow_refs())), list(fitted))
    assert found.digest == whole.digest
    for name, tally in whole.by_name.items():
        np.testing.assert_allclose(found.by_name[name].figures(), tally.figures())
    figures = measure(found, list(fitted))
    assert figures["impressions"] == sum(map(sum, test["loss_mask"].to_pylist()))
    assert set(figures["references"]) >= {"like rate", "like rate + user"}


@pytest.mark.slow
def test_two_workers_train_and_score(tmp_path: Path) -> None:
    windows = taste_windows(301, seed=1)
    ranker, history = trained(tmp_path, windows)
    counted = sum(sum(mask) for mask in windows["loss_mask"].to_pylist())
    assert [epoch.impressions for epoch in history] == [counted] * 3  # an odd number of windows, none dropped
    assert history[-1].loss < history[0].loss
    assert torch.equal(ranker.state[VOCABULARY], vocabulary([item_counts(windows)], ItemIdConfig()))
    assert ranker.state[VOCABULARY.replace("hash_I", "table.weight")][:-1].any(1).all()

    ranker.save(tmp_path / "ranker", {})
    assert load(tmp_path / "ranker", TOKENIZER).fingerprint == ranker.fingerprint
    test = taste_windows(120, seed=2)
    scored = predict(
        ray.data.from_arrow(test), lambda: nullcontext(tmp_path / "ranker"), tokenizer=TOKENIZER
    ).to_pandas()
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

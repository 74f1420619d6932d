"""Training a tokenizer on Ray: several workers, workers and drivers that die, and reasons why there is none."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from test_vector_files import content, planned, row, shop

import pipeline.on_ray.training.runs as runs
import pipeline.on_ray.training.tokenizer_workers as workers
from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.artefacts import fingerprints, local_folder
from pipeline.lake.plans import Plan, load_plan
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.training.tokenizer import train_tokenizer, training_name
from pipeline.on_ray.training.tokenizer_workers import Trained
from pipeline.on_ray.training.vector_files import Vectors, splits
from tokenizer.base.artefact import load
from tokenizer.base.config import SHARE, TokenizerConfig
from tokenizer.training.fitting import fit

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]

SMALL = {"shared_levels": 2, "text_levels": 1, "image_levels": 1, "codebook_size": 8, "dim": 8, "hidden": 16}
SHORT = {"epochs": 10, "min_steps": 1, "batch_size": 32, "workers": 2, "patience": 50}

DRIVER = """
import sys
import pipeline.on_ray.training.runs as runs
from pipeline.config.models import Config
from pipeline.on_ray.session import ray_session
from pipeline.lake.plans import load_plan
from pipeline.lake.run import Run
from pipeline.on_ray.training.tokenizer import train_tokenizer

runs.CHECKPOINT_SECONDS = 0
config = Config.model_validate_json(sys.stdin.read())
with ray_session(config.ray), Run("train-tokenizer", config) as run:
    plan = load_plan(run.lake, "train-tokenizer", run.lake.names("plans")[-1])
    train_tokenizer(run, plan, lambda epoch, *_: print("epoch", epoch, flush=True))
"""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train looks after its workers ten times a second, and every epoch leaves a checkpoint."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0)


def catalogue(
    folder: Path, *, items: int = 300, image: bool = True, seed: int | None = None, **tokenizer: Any
) -> Config:
    config = Config.model_validate(
        {
            "lake": str(folder),
            "catalog": {"source": {"path": "items.csv", "format": "csv"}, "id": "id", "text": "{title}"},
            "tokenizer": SMALL | SHORT | tokenizer,
        }
    )
    shop(folder, items, image=image, seed=seed)
    return config


def plan_of(config: Config) -> Plan:
    lake = Lake.open(config.lake)
    return load_plan(lake, "train-tokenizer", lake.names("plans")[-1])


def train(config: Config) -> tuple[str, list[int], Run]:
    """The tokenizer, the epochs in the order in which they were told, and the run."""
    epochs: list[int] = []
    with Run("train-tokenizer", config) as run:
        fingerprint = train_tokenizer(run, plan_of(config), lambda epoch, *_: epochs.append(epoch))
    return fingerprint, epochs, run


def in_every_worker(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]) -> None:
    """Let workers call ``wrap(fit)`` for ``fit``."""

    def train_worker(told: dict[str, Any]) -> Any:
        from pipeline.on_ray.training import tokenizer_workers as theirs

        theirs.fit = wrap(theirs.fit)
        return theirs._train_worker(told)

    monkeypatch.setattr(workers, "_train_worker", train_worker)


def checkpoints(config: Config) -> list[str]:
    return Lake(config.lake).names("checkpoints")


@pytest.fixture(scope="module")
def undisturbed(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The fingerprint of a tokenizer that two workers trained, and the folder of what each of them had in the end."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def kept(fit: Any) -> Any:
        def fit_and_keep(embeddings: Any, *arguments: Any, **options: Any) -> Any:
            import ray.train

            model = fit(embeddings, *arguments, **options)
            weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            found = {"items": len(embeddings), "weights": hashlib.sha256(save(weights)).hexdigest()}
            rank = ray.train.get_context().get_world_rank()
            (folder / f"rank{rank}.json").write_text(json.dumps(found))
            return model

        return fit_and_keep

    with pytest.MonkeyPatch.context() as patch:
        in_every_worker(patch, kept)
        fingerprint, _, _ = train(catalogue(folder / "lake"))
    return fingerprint, folder


@pytest.mark.slow
def test_two_workers_end_with_one_tokenizer(undisturbed: tuple[str, Path]) -> None:
    fingerprint, folder = undisturbed
    lake = Lake(str(folder / "lake"))
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert fingerprints(lake, "tokenizers") == [fingerprint]
    assert lake.names("checkpoints") == []
    (record,) = (json.loads(file.read_text()) for file in (folder / "lake" / "runs").glob("*/*.json"))
    metrics = record["metrics"]
    assert (metrics["device"], metrics["workers"], metrics["epochs"]) == ("cpu", 2, 10)
    assert metrics["seconds"] > 0
    assert metrics["modalities"] == ["text", "image"]
    assert record["counts"]["rows_in"] == metrics["items"] == 300

    with local_folder(lake, "tokenizers", fingerprint) as artefact:
        trained = load(artefact)
    vectors = Vectors(lake, load_plan(lake, "train-tokenizer", lake.names("plans")[-1]))
    assert trained.encoders == vectors.plan.facts["encoders"]
    rows = splits(vectors.keys_N, watched=True)
    assert first["items"] == 300 - rows.train.start  # neither what is held out nor what is watched
    assert 0 < rows.held_out.stop < rows.train.start
    items = vectors.load()
    codes_NS = trained.model.encode(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N)
    assert len(codes_NS.unique(dim=0)) > 20
    assert trained.metrics["held_out"]["reconstruction"]["text"] > 0.4


@pytest.mark.slow
def test_a_dead_worker_changes_nothing_nor_do_files(
    undisturbed: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "died"

    def deadly(fit: Any) -> Any:
        def fit_or_die(*arguments: Any, on_epoch: Any, **options: Any) -> Any:
            import os

            import ray.train

            def told(training: Any) -> None:
                on_epoch(training)
                if training.epoch == 5 and ray.train.get_context().get_world_rank() == 1 and not marker.exists():
                    marker.touch()
                    os._exit(1)

            return fit(*arguments, on_epoch=told, **options)

        return fit_or_die

    in_every_worker(monkeypatch, deadly)
    fingerprint, epochs, run = train(catalogue(tmp_path / "lake", seed=1))
    assert marker.exists()
    assert epochs.count(1) == 1  # it went on from a checkpoint
    assert run.metrics["epochs"] == epochs[-1] == 10
    assert fingerprint == undisturbed[0]


@pytest.mark.slow
def test_a_run_after_a_dead_driver_goes_on(undisturbed: tuple[str, Path], tmp_path: Path) -> None:
    config = catalogue(tmp_path / "lake")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(config.model_dump_json())
    driver.stdin.close()
    told = [line for line in iter(driver.stdout.readline, "epoch 5\n") if line]
    driver.kill()
    assert driver.wait(timeout=60) < 0
    assert "epoch 4\n" in told
    assert fingerprints(Lake(config.lake), "tokenizers") == []
    assert len(checkpoints(config)) == 1

    fingerprint, epochs, run = train(config)
    assert epochs[0] > 1
    assert run.metrics["epochs"] == 10
    assert fingerprint == undisturbed[0]
    assert checkpoints(config) == []


@pytest.mark.slow
def test_residual_k_means_of_texts_alone_past_checkpoints_that_a_kill_broke(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = catalogue(tmp_path, image=False, method="rq_kmeans", workers=1)
    lake = Lake(config.lake)
    vectors = Vectors(lake, plan_of(config))
    broken = tmp_path / "checkpoints" / training_name(config.tokenizer, vectors)
    broken.mkdir(parents=True)
    (broken / "checkpoint_manager_snapshot.json").touch()
    fingerprint, epochs, run = train(config)
    assert fingerprints(lake, "tokenizers") == [fingerprint]
    assert (epochs, run.metrics["epochs"], run.metrics["modalities"]) == ([], 0, ["text"])
    assert "no item has an image: the tokenizer learns from text alone" in caplog.messages
    assert any(message.endswith("cannot be read: training begins anew") for message in caplog.messages)
    assert checkpoints(config) == []


def test_what_cannot_be_trained_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = tmp_path / "attempts"
    attempts.mkdir()

    def counted(fit: Any) -> Any:
        def fit_and_count(*arguments: Any, **options: Any) -> Any:
            import uuid

            (attempts / uuid.uuid4().hex).touch()
            return fit(*arguments, **options)

        return fit_and_count

    in_every_worker(monkeypatch, counted)
    config = catalogue(tmp_path / "lake", items=40, codebook_size=64, workers=1)
    with pytest.raises(JobError, match=r"^tokenizer: \d+ items.* cannot fill codebooks of 64 codes; [^\n]*$"):
        train(config)
    assert len(list(attempts.iterdir())) == 1
    assert checkpoints(config) == []


@pytest.mark.slow
def test_workers_that_cannot_go_on_end_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> Any:
        def fit(*_: Any, **__: Any) -> None:
            raise JobError("the vectors need 9 GB: make room there")

        return fit

    in_every_worker(monkeypatch, fails)
    monkeypatch.setattr(runs, "MAX_FAILURES", 0)
    config = catalogue(tmp_path, items=40, workers=1)
    with pytest.raises(JobError) as refusal:
        train(config)
    assert str(refusal.value) == f"training failed: the vectors need 9 GB: make room there; {runs.AGAIN}"


def test_a_modality_that_held_out_items_alone_have_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def train_here(config: TokenizerConfig, vectors: Vectors, *_: object) -> Trained:
        items = vectors.load().select(splits(vectors.keys_N, watched=False).train)
        return Trained(fit(items, config).state_dict(), "cpu", 0, 0.0)

    monkeypatch.setattr("pipeline.on_ray.training.tokenizer.train", train_here)
    config = catalogue(tmp_path, method="rq_kmeans", patience=None)
    held_out = [int(content(i)[:16], 16) < SHARE * 2**64 for i in range(300)]
    pictured = held_out.index(True, 1)
    rows = [row(i, image=held_out[i]) | ({"text_vector": None} if i == pictured else {}) for i in range(300)]
    planned(Lake.open(config.lake), rows)
    _, _, run = train(config)
    assert run.metrics["modalities"] == ["text"]
    assert run.metrics["items"] == 299  # one has but a picture
    assert "no training item has an image, others have: the tokenizer learns from text alone" in caplog.messages


def test_more_workers_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "gpus", lambda: 1)
    with pytest.raises(JobError, match=r"workers is 2, but Ray has 1 GPUs"):
        train(catalogue(tmp_path, items=40))

"""Every mix of encoders, tokenizers, IDs and rankers is refused, and the refusal names both sides."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from handmade import become_run, config_of, encoded, extracted, identified, trained, writable
from pyspark.sql import SparkSession
from safetensors.torch import load_file, save_file
from test_ranker_data import LAYOUT, taste_windows

from jobs.nightly import run_nightly
from jobs.tokenize import check_encoders
from pipeline.config.encoders import Encoders
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.artefacts import store, tokenizer_encoders
from pipeline.lake.commit import append
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.on_ray import tokenize as tokenizing
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.training.code_vectors import decoded_vectors
from pipeline.on_ray.training.ranker import evaluate, train_ranker
from pipeline.on_ray.training.ranker_workers import train
from pipeline.on_ray.training.scoring import WindowScorer
from pipeline.on_spark.plans import plan_tokenizing, plan_training
from pipeline.on_spark.publish import publish
from pipeline.release.pointer import require_release
from ranker.architectures import build
from ranker.artefact import DECODED, ArtefactError, TrainedRanker
from ranker.config import RankerConfig
from ranker.windows import WindowError
from schemas.tables import SEQUENCES

pytestmark = pytest.mark.spark

CONFIGURED, OTHER = encoder_fingerprints(Encoders()), {"text": "e" * 16, "image": "f" * 16}
NIGHT = {f"i{n}": f"content {n}" for n in range(40)}
OPEN = {"max_collision_rate": 1, "min_perplexity": 0, "max_code_share": 1000}


def tokenize(run: Run, tokenizer: str) -> None:
    """The job on a plan without rows: what it refuses, it refuses before any."""
    check_encoders(run, tokenizer, CONFIGURED)
    tokenizing.tokenize(run, Plan("tokenize", run.run_id, 0, 0, {"tokenizer": tokenizer}))


def backfill(run: Run, tokenizer: str) -> None:
    """The same, whichever encoders are configured."""
    assert tokenizer_encoders(run.lake, tokenizer)
    tokenizing.tokenize(run, Plan("backfill", run.run_id, 0, 0, {"tokenizer": tokenizer}))


class Shop:
    """A lake with vectors of two encoders and tokenizers ``a`` and ``b`` of the configured ones; ``a`` is released."""

    def __init__(self, folder: Path, a: str, b: str, foreign: str) -> None:
        ranker = {"dim": 16, "layers": 1, "heads": 2, "max_items": 40}
        self.config = config_of(folder, gates=OPEN, ranker=ranker)
        self.lake = writable(self.config.lake)
        self.a, self.b, self.foreign = a, b, foreign

    def folder(self, kind: str, fingerprint: str) -> Path:
        return Path(self.lake.path(f"{kind}/{fingerprint}"))

    def windows(self, tokenizer: str) -> pa.Table:
        rows = taste_windows(4, seed=0)
        names = pa.array([tokenizer] * rows.num_rows)
        return rows.set_column(rows.schema.get_field_index("tokenizer"), "tokenizer", names)

    def sequences(self, tokenizer: str) -> None:
        become_run(self.lake)
        for split in ("train", "test"):
            rows = self.windows(tokenizer)
            column = pa.array([split] * rows.num_rows)
            rows = rows.set_column(rows.schema.get_field_index("split"), "split", column)
            append(self.lake, SEQUENCES, rows)

    def ranker(self, tokenizer: str, seed: int = 0) -> str:
        config = RankerConfig(dim=16, layers=1, heads=2, max_items=40, seed=seed)
        ranker = TrainedRanker(config, LAYOUT, tokenizer, build(config, LAYOUT).state_dict())
        local = self.folder("made", ranker.fingerprint)
        ranker.save(local, {})
        store(self.lake, "rankers", local, ranker.fingerprint)
        return ranker.fingerprint

    def says(self, job: Callable[[Run], object], config: Config | None = None) -> str:
        """The message of a job that must refuse, and must leave release and tables as they are."""
        tables = [file for file in Path(self.lake.uri).rglob("*") if "_delta_log" in file.parts]
        with pytest.raises(JobError) as refusal, Run("job", config or self.config) as run:
            job(run)
        assert [file for file in Path(self.lake.uri).rglob("*") if "_delta_log" in file.parts] == tables
        return str(refusal.value)


@pytest.fixture(scope="module")
def made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop that every test has a copy of."""
    folder = tmp_path_factory.mktemp("shop")
    lake = writable(config_of(folder).lake)
    extracted(lake, NIGHT)
    for encoders in (CONFIGURED, OTHER):
        encoded(lake, list(NIGHT.values()), encoders)
    a, b = (trained(lake, CONFIGURED, seed=seed) for seed in (1, 2))
    shop = Shop(folder, a, b, trained(lake, OTHER))
    for tokenizer in (a, b):
        identified(lake, tokenizer, {item: (n % 8, n // 8, n % 8, n % 8) for n, item in enumerate(NIGHT)}, NIGHT)
    with Run("publish", shop.config) as run:
        publish(spark, run, a)
    return shop


@pytest.fixture
def shop(made: Shop, tmp_path: Path) -> Shop:
    shutil.copytree(made.lake.uri, tmp_path / "lake")
    return Shop(tmp_path, made.a, made.b, made.foreign)


def test_a_tokenizer_of_other_encoders_is_not_for_the_nightly_flow(shop: Shop) -> None:
    for job in (lambda run: tokenize(run, shop.foreign), lambda _: run_nightly(shop.config, shop.foreign)):
        said = shop.says(job)
        assert all(name in said for name in (shop.foreign, OTHER["text"], CONFIGURED["text"]))
    assert not list(shop.folder("runs", "").rglob("extract.json"))  # no work was begun


def test_vectors_of_other_encoders_train_nothing(spark: SparkSession, shop: Shop) -> None:
    nobody = {"text": "0" * 16, "image": "1" * 16}
    said = shop.says(lambda run: plan_training(spark, run, nobody, most=100))
    assert all(encoder in said for encoder in nobody.values())


def test_an_unknown_tokenizer_or_ranker_is_named_with_those_there_are(spark: SparkSession, shop: Shop) -> None:
    unknown = "f" * 16
    for job in (tokenize, backfill, partial(publish, spark)):
        said = shop.says(lambda run, job=job: job(run, unknown))
        assert all(name in said for name in (unknown, shop.a, shop.b, shop.foreign))
    ranker = shop.ranker(shop.a)
    said = shop.says(lambda run: evaluate(run, unknown))
    assert all(name in said for name in (unknown, ranker))


def test_a_ranker_is_not_trained_on_windows_of_another_tokenizer(shop: Shop) -> None:
    shop.sequences(shop.b)
    said = shop.says(train_ranker)
    assert f"no train windows of tokenizer {shop.a}, sequences has those of {shop.b}" in said


def test_a_ranker_is_not_measured_on_ids_of_another_tokenizer(shop: Shop) -> None:
    shop.sequences(shop.b)
    said = shop.says(lambda run: evaluate(run, shop.ranker(shop.a)))
    assert f"no test windows of tokenizer {shop.a}, sequences has those of {shop.b}" in said
    folder = shop.folder("rankers", shop.ranker(shop.a))
    scorer = WindowScorer(lambda: nullcontext(folder), shop.a)
    assert scorer(shop.windows(shop.a)).num_rows > 0
    with pytest.raises(WindowError, match=f"{shop.b}, the ranker was made for {shop.a}"):
        scorer(shop.windows(shop.b))
    with pytest.raises(ArtefactError, match=f"reads tokenizer {shop.a}, the data is of {shop.b}"):
        WindowScorer(lambda: nullcontext(folder), shop.b)


def test_decoded_vectors_are_those_of_the_tokenizer_whose_codes_a_ranker_reads(shop: Shop) -> None:
    decoded = decoded_vectors(shop.lake, shop.b, ["text"])
    assert decoded is not None
    assert decoded.tokenizer == shop.b
    with pytest.raises(JobError, match=f"decoded vectors are of tokenizer {shop.b}, the windows of {shop.a}"):
        train(None, RankerConfig(decoded=("text",)), LAYOUT, shop.a, decoded=decoded, lake=shop.lake, checkpoints="c")


def test_decoded_vectors_that_are_exchanged_in_a_ranker_are_noticed(shop: Shop) -> None:
    config = RankerConfig(dim=16, layers=1, heads=2, max_items=40, decoded=("text",))
    vectors_CV = build_vectors()
    ranker = TrainedRanker(config, LAYOUT, shop.a, build(config, LAYOUT, vectors_CV).state_dict())
    local = shop.folder("made", "decoded")
    ranker.save(local, {})
    store(shop.lake, "rankers", local, ranker.fingerprint)
    file = shop.folder("rankers", ranker.fingerprint) / "model.safetensors"
    save_file(load_file(file) | {DECODED: vectors_CV.flip(0).contiguous()}, file)
    said = shop.says(lambda run: evaluate(run, ranker.fingerprint))
    assert "is damaged" in said
    assert ranker.fingerprint in said


def build_vectors() -> torch.Tensor:
    rows = LAYOUT.slots * (LAYOUT.codebook_size + 1)
    return torch.arange(rows * 3, dtype=torch.float32).reshape(rows, 3)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half the weights": lambda folder: _halve(folder / "model.safetensors"),
    "half the description": lambda folder: _halve(folder / "config.json"),
    "no text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "no key": lambda folder: (folder / "config.json").write_text("{}"),
    "impossible levels": lambda folder: _describe(folder, "shared_levels", -1),
}


def _halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _describe(folder: Path, key: str, value: object) -> None:
    described = json.loads((folder / "config.json").read_text())
    described.get("config", described.get("layout"))[key] = value
    (folder / "config.json").write_text(json.dumps(described))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tokenizer_is_refused_by_name(spark: SparkSession, shop: Shop, damage: str) -> None:
    DAMAGE[damage](shop.folder("tokenizers", shop.b))
    jobs: list[Callable[[Run], object]] = [lambda run: tokenize(run, shop.b), lambda run: backfill(run, shop.b)]
    jobs.append(lambda run: decoded_vectors(run.lake, shop.b, ["text"]))
    if "weights" not in damage:  # publish does not look at them
        jobs.append(lambda run: publish(spark, run, shop.b))
    for job in jobs:
        said = shop.says(job)
        assert f"tokenizers/{shop.b}" in said
        assert "\n" not in said.strip()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_ranker_is_refused_by_name(shop: Shop, damage: str) -> None:
    ranker = shop.ranker(shop.a)
    DAMAGE[damage](shop.folder("rankers", ranker))
    said = shop.says(lambda run: evaluate(run, ranker))
    assert str(shop.folder("rankers", ranker)) in said


def test_an_artefact_under_the_name_of_another_is_refused_with_both_names(spark: SparkSession, shop: Shop) -> None:
    shutil.rmtree(shop.folder("tokenizers", shop.b))
    shutil.copytree(shop.folder("tokenizers", shop.foreign), shop.folder("tokenizers", shop.b))
    for job in (tokenize, backfill, partial(publish, spark)):
        said = shop.says(lambda run, job=job: job(run, shop.b))
        assert f"tokenizers/{shop.b} holds {shop.foreign}" in said
    first, second = shop.ranker(shop.a), shop.ranker(shop.a, seed=1)
    shutil.rmtree(shop.folder("rankers", second))
    shutil.copytree(shop.folder("rankers", first), shop.folder("rankers", second))
    assert f"rankers/{second} holds {first}" in shop.says(lambda run: evaluate(run, second))


def test_weights_of_another_tokenizer_are_refused_with_both_names(shop: Shop) -> None:
    weights = shop.folder("tokenizers", shop.a) / "model.safetensors"
    shutil.copy(weights, shop.folder("tokenizers", shop.b) / "model.safetensors")
    said = shop.says(lambda run: tokenize(run, shop.b))
    assert "do not belong together" in said
    assert shop.b in said


def test_what_is_refused_was_possible(spark: SparkSession, shop: Shop) -> None:
    """The shop is whole: its own tokenizers pass where others are refused."""
    for job in (tokenize, backfill):
        with Run("job", shop.config) as run:
            job(run, shop.b)
    with Run("job", shop.config) as run:
        assert plan_tokenizing(spark, run, "tokenize", shop.b, CONFIGURED).rows == 0
    with Run("publish", shop.config) as run:
        assert publish(spark, run, shop.b)
    assert require_release(shop.lake).tokenizer == shop.b
    with pytest.raises(ConfigError, match="there are"), Run("publish", shop.config) as run:
        publish(spark, run, "../../etc")

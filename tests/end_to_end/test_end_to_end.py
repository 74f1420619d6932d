"""The whole pipeline on real engines: a small generated catalogue to a ranker, then more nights."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from nights import run_night
from pyspark.sql import SparkSession
from slow_ids import filled, parsed

from jobs.tokenize import check_encoders
from pipeline.config.encoders import VectorColumn
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.errors import ConfigError, JobError
from pipeline.inspect.status import status
from pipeline.lake.artefacts import fingerprints, tokenizer_layout
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.training.ranker import evaluate, train_ranker
from pipeline.on_spark.plans import plan_training
from pipeline.on_spark.sequences import sequences
from pipeline.release.pointer import require_release
from pipeline.release.rollback import rollback
from schemas.semantic_id import item_hash
from schemas.tables import TABLES

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]

SETTINGS = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=60",
    "ranker={dim: 16, layers: 1, heads: 2, max_items: 20, epochs: 1, decoded: [text, image], item_id: {}, workers: 2}",
    "gates={max_collision_rate: 1, min_perplexity: 0.2, min_coverage: 0.999}",
    "encoders={commit_rows: 110, workers: 1}",
]


@pytest.fixture(scope="module")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my sh\u00f6p")
    generate(folder, items=220, users=40, seed=0)
    return folder


@pytest.fixture(scope="module")
def config(shop_folder: Path) -> Config:
    return load_config(shop_folder / "config.yaml", SETTINGS)


@pytest.fixture(scope="module")
def first_night(spark: SparkSession, ray: None, config: Config) -> dict[str, Run]:
    """Every job once; their runs by name."""
    runs = run_night(spark, config)
    with Run("sequences", config) as runs["sequences"]:
        sequences(spark, runs["sequences"])
    return runs


def rows_of(config: Config, name: str) -> pa.Table:
    table = TABLES[name]
    return Lake(config.lake).read(table, table.schema.names)


def test_every_table_is_as_declared(first_night: dict[str, Run], config: Config) -> None:
    for name, table in TABLES.items():
        rows = rows_of(config, name)
        assert rows.num_rows, name
        assert table.check(rows) == []


def test_counts_follow_the_items_from_job_to_job(first_night: dict[str, Run], config: Config) -> None:
    extracted, encoded, tokenized = (first_night[n].counts for n in ("extract", "encode", "tokenize"))
    items, vectors = rows_of(config, "items"), rows_of(config, "vectors")
    texts, images = (set(items[f"{modality}_sha"].drop_null().to_pylist()) for modality in ("text", "image"))
    assert extracted["rows_out"] == tokenized["rows_in"] == tokenized["rows_out"] == 219
    assert (encoded["texts_encoded"], encoded["images_encoded"]) == (len(texts), len(images))
    assert encoded["rows_out"] == vectors.num_rows == len(texts) + len(images)
    assert len(texts) < 219  # the catalogue has duplicates, and they are encoded once


def test_vectors_are_float16_numbers_of_length_one(first_night: dict[str, Run], config: Config) -> None:
    dims = dict(zip(encoder_fingerprints(config.encoders).values(), (384, 256), strict=True))
    for row in rows_of(config, "vectors").to_pylist():
        values = np.array(row["vector"], np.float32)
        assert row["fault"] is None
        assert len(values) == dims[row["encoder"]]
        assert np.array_equal(values, values.astype(np.float16).astype(np.float32))
        assert abs(np.linalg.norm(values) - 1) < 1e-2


def test_ids_agree_with_their_readable_form_and_are_unique(first_night: dict[str, Run], config: Config) -> None:
    lake = Lake.open(config.lake)
    layout = tokenizer_layout(lake, require_release(lake).tokenizer)
    rows = rows_of(config, "semantic_ids").to_pylist()
    for row in rows:
        codes = parsed(row["sid"], layout)
        assert list(codes.shared) == row["shared"]
        assert (codes.text is None) == (row["text"] is None) == (not row["has_text"])
        assert (codes.image is None) == (row["image"] is None) == (not row["has_image"])
        assert row["item_hash"] == item_hash(row["item_id"]) >= 0
    assert len({(row["sid"], row["item_hash"]) for row in rows}) == len(rows)


def test_sequences_hold_the_released_codes(first_night: dict[str, Run], config: Config) -> None:
    lake = Lake.open(config.lake)
    layout = tokenizer_layout(lake, require_release(lake).tokenizer)
    ids = lake.released_ids().to_table(["item_hash", "item_id", "sid"]).to_pylist()
    tokens = {row["item_hash"]: filled(parsed(row["sid"], layout), layout) for row in ids}
    names = {row["item_hash"]: row["item_id"] for row in ids}
    counts = first_night["sequences"].counts
    windows = rows_of(config, "sequences").to_pylist()
    for window in windows:
        assert window["tokens"] == [code for item in window["item_hashes"] for code in tokens[item]]
        ids_there = [names[item] for item in window["item_hashes"]] if window["split"] == "test" else None
        assert window["item_ids"] == ids_there
        assert window["times"] == sorted(window["times"])
    lines = (Path(config.lake).parent / "interactions.csv").read_text().splitlines()
    assert counts["rows_in"] == len(lines) - 1
    dropped = sum(counts[name] for name in ("incomplete", "repeated", "contradicted", "without_ids"))
    assert counts["events"] == counts["rows_in"] - dropped
    assert counts["train_events"] + counts["test_events"] == counts["events"]
    assert abs(counts["test_events"] / counts["events"] - 0.1) < 0.02


def test_a_ranker_is_trained_and_measured(first_night: dict[str, Run], config: Config) -> None:
    with Run("train-ranker", config) as run:
        ranker = train_ranker(run)
    with Run("evaluate", config) as run:
        figures = evaluate(run, ranker)
    assert figures["impressions"] == first_night["sequences"].counts["test_events"]
    assert 0 < figures["auc"] < 1
    assert sum(part["impressions"] for part in figures["slices"].values()) == figures["impressions"]
    assert fingerprints(run.lake, "rankers") == [ranker]
    with pytest.raises(ConfigError, match=f"has no '0000000000000000'; there are {ranker}"):
        evaluate(Run("evaluate", config), "0" * 16)


def test_the_phases_of_every_record_add_up(first_night: dict[str, Run], config: Config) -> None:
    records = [json.loads(file.read_text()) for file in (Path(config.lake) / "runs").glob("*/*.json")]
    assert {"extract", "encode", "tokenize", "publish", "sequences"} <= {record["job"] for record in records}
    for record in records:
        seconds = record["seconds"]
        total = seconds.pop("total")
        assert total == pytest.approx(sum(seconds.values()), abs=0.001 * len(seconds)), record["job"]


def test_foreign_clients_read_the_ids(first_night: dict[str, Run], config: Config) -> None:
    released_ids = Lake.open(config.lake).released_ids().dataset
    assert isinstance(released_ids, ds.Dataset)
    assert duckdb.sql("SELECT count(DISTINCT item_id) FROM released_ids").fetchall() == [(219,)]


def versions(config: Config) -> dict[str, Any]:
    return {name: Lake(config.lake).version(table) for name, table in TABLES.items()}


@pytest.mark.slow
def test_more_nights(spark: SparkSession, first_night: dict[str, Run], shop_folder: Path, config: Config) -> None:
    """Unchanged data appends nothing; changed items alone are done again; a rollback brings the old IDs back."""
    before, ids = versions(config), ids_by_item(config)
    command = [sys.executable, "-m", "jobs", "nightly", "-c", str(shop_folder / "config.yaml")]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(\w+: \w+: \d+ of \d+ tasks.*\n)*", done.stderr)  # what takes 30 s tells how far it is
    assert f"next: hisam status -c '{shop_folder}" in done.stdout.splitlines()[-1]
    records = sorted((shop_folder / "lake" / "runs").iterdir())[-1]
    night = {file.stem: json.loads(file.read_text()) for file in records.iterdir()}
    counts = {job: record["counts"] for job, record in night.items()}
    jobs = {"extract", "encode", "tokenize", "publish", "report"}
    assert counts.keys() == jobs | {"nightly"}
    assert night["nightly"]["seconds"].keys() == jobs | {"lock", "spark_start", "rest", "total"}
    assert (shop_folder / "lake" / "reports" / records.name / "index.html").is_file()
    assert versions(config) == before
    assert counts["extract"]["skipped"] == 219
    assert not any(job.get("rows_out") for job in counts.values())

    changes = mutate(shop_folder, 0.08, seed=1)
    fresh = {*changes["text_edited"], *changes["image_edited"], *changes["new"]}
    runs = run_night(spark, config)
    assert runs["extract"].counts["rows_out"] == len(fresh)
    assert runs["extract"].counts["deleted"] == len(changes["deleted"])
    assert 0 < runs["encode"].counts["rows_out"] <= 2 * len(changes["new"]) + len(fresh) - len(changes["new"])
    assert runs["tokenize"].counts["rows_out"] == len(fresh)
    after = ids_by_item(config)
    assert not set(changes["deleted"]) & after.keys()
    assert {item: after[item] for item in after if item not in fresh} == {
        item: ids[item] for item in ids if item not in fresh and item not in changes["deleted"]
    }
    assert {job: work["items"] for job, work in status(spark, Lake.open(config.lake), config)["waiting"].items()} == {
        "encode": 0,
        "tokenize": 0,
        "publish": 0,
    }

    with Run("rollback", config) as run:
        assert rollback(run).version == 3
    assert ids_by_item(config) == ids
    assert rows_of(config, "releases").sort_by("version")["action"].to_pylist() == ["publish", "publish", "rollback"]


def ids_by_item(config: Config) -> dict[str, tuple[str, int]]:
    rows = Lake.open(config.lake).released_ids().to_table(["item_id", "sid", "item_hash"]).to_pylist()
    return {row["item_id"]: (row["sid"], row["item_hash"]) for row in rows}


def test_vectors_of_other_encoders_are_refused_with_both_names(
    spark: SparkSession, first_night: dict[str, Run], config: Config
) -> None:
    tokenizer = fingerprints(Lake(config.lake), "tokenizers")[0]
    trained_on = encoder_fingerprints(config.encoders)
    text = VectorColumn(column="vector", name="another", version="1")
    other = encoder_fingerprints(config.encoders.model_copy(update={"text": text}))
    assert other["image"] == trained_on["image"]  # a new text encoder leaves the pictures' vectors as they are
    with (
        Run("tokenize", config) as run,
        pytest.raises(JobError, match=rf"{trained_on['text']}, configured is\s{other['text']}"),
    ):
        check_encoders(run, tokenizer, other)
    nobody = {"text": "0" * 16, "image": "0" * 16}
    with Run("train-tokenizer", config) as run, pytest.raises(JobError, match="run encode first"):
        plan_training(spark, run, nobody, most=100)

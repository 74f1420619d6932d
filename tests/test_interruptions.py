"""Jobs that stop half way and run again, runs that overlap, and catalogues that lack a modality."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import pipeline.encode as encoding
from pipeline.artefacts import fingerprints
from pipeline.config import Config
from pipeline.config_file import load_config
from pipeline.demo.generator import mutate
from pipeline.encode import encode
from pipeline.extract import extract
from pipeline.lake import Lake
from pipeline.live import Chunk, chunks, live_items
from pipeline.releases import publish, released, released_ids
from pipeline.run import Run
from pipeline.tokenize import tokenize
from pipeline.tokenizer_training import train_tokenizer
from schemas.tables import EMBEDDINGS, SEMANTIC_IDS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]

SMALL = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=40",
    "gates={max_collision_rate: 1, min_codebook_use: 0, max_delete_fraction: 1}",
    "encoders.commit_rows=100",
]


def keys(config: Config, columns: tuple[str, ...] = ("content_hash",)) -> list[tuple[str, ...]]:
    table = EMBEDDINGS if columns == ("content_hash",) else SEMANTIC_IDS
    return [tuple(row.values()) for row in Lake(config.lake).read(table, columns).to_pylist()]


def test_a_night_that_stops_half_way_goes_on_from_there(
    spark: SparkSession, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(shop / "config.yaml", SMALL)
    for change in (0.0, 0.9):  # two nights leave the items in two files, hence two chunks
        if change:
            mutate(shop, change, seed=1)
        with Run("extract", config) as run:
            extract(spark, run)
    whole, done = encoding._encode_chunk, []

    def stops_after_one(run: Run, chunk: Chunk, encoder: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(chunk.rows.num_rows)
        whole(run, chunk, encoder)

    monkeypatch.setattr(encoding, "_encode_chunk", stops_after_one)
    monkeypatch.setattr(encoding, "chunks", lambda rows, size: chunks(rows, 1))
    with pytest.raises(KeyboardInterrupt), Run("encode", config) as run:
        encode(run)
    assert len(keys(config)) == done[0] > 0
    monkeypatch.undo()
    with Run("encode", config) as run:
        encode(run)
    assert run.counts["skipped"] == done[0]
    live = set(live_items(Lake(config.lake))["content_hash"].to_pylist())
    assert sorted(key for (key,) in keys(config)) == sorted(live)


def test_vectors_that_overlapping_runs_wrote_twice_count_once(spark: SparkSession, shop: Path) -> None:
    config = load_config(shop / "config.yaml", SMALL)
    with Run("extract", config) as run:
        extract(spark, run)
    with Run("encode", config) as run:
        encode(run)
    lake = Lake(config.lake)
    lake.append(EMBEDDINGS, lake.read(EMBEDDINGS, EMBEDDINGS.schema.names).slice(0, 50))
    with Run("train", config) as run:
        tokenizer = train_tokenizer(run)
    with Run("tokenize", config) as run:
        tokenize(run, tokenizer)
    columns = ("item_id", "content_hash")
    assert len(keys(config, columns)) == len(set(keys(config, columns))) == 119
    assert run.counts["rows_out"] == 119
    lake.append(SEMANTIC_IDS, lake.read(SEMANTIC_IDS, SEMANTIC_IDS.schema.names).slice(0, 10))
    with Run("publish", config) as run:
        assert publish(run, tokenizer)
    release = released(lake)
    assert release is not None
    assert released_ids(lake, release, ["item_id"]).num_rows == 119

    nightly = [sys.executable, "-m", "jobs.nightly", "-c", str(shop / "config.yaml")]
    for setting in SMALL:
        nightly += ["--set", setting]
    done = subprocess.run(nightly, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    records = sorted((shop / "lake" / "runs").iterdir())[-1]
    written = {file.stem: json.loads(file.read_text())["counts"] for file in records.iterdir()}
    assert set(written) == {"extract", "encode", "tokenize", "publish", "nightly"}
    assert all(not counts.get("rows_out") for name, counts in written.items() if name != "publish")


def test_a_catalogue_of_texts_alone_and_pictures_that_come_later(spark: SparkSession, shop: Path) -> None:
    config = load_config(shop / "config.yaml", [*SMALL, "catalog.image=null"])
    with Run("extract", config) as run:
        extract(spark, run)
    with Run("encode", config) as run:
        encode(run)
    with Run("train", config) as run:
        tokenizer = train_tokenizer(run)
    with Run("tokenize", config) as run:
        tokenize(run, tokenizer)
    lake = Lake(config.lake)
    rows = lake.read(SEMANTIC_IDS, ["sid", "image", "has_image"])
    texts = live_items(lake).num_rows
    assert rows.num_rows == texts
    assert rows["image"].null_count == texts
    assert not any(rows["has_image"].to_pylist())
    assert all(".i" not in sid for sid in rows["sid"].to_pylist())

    pictured = load_config(shop / "config.yaml", SMALL)
    with Run("extract", pictured) as run:
        extract(spark, run)
    assert run.counts["changed"] > 0
    with Run("encode", pictured) as run:
        encode(run)
    with Run("tokenize", pictured) as run:
        tokenize(run, fingerprints(lake, "tokenizers")[0])
    assert run.counts["rows_out"] > 0
    after = lake.read(SEMANTIC_IDS, ["item_id", "sid"])
    assert all(".i" not in sid for sid in after["sid"].to_pylist())  # the tokenizer never learned what pictures say

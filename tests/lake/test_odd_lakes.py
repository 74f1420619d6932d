"""What counts once though it is there twice, and catalogues that lack a modality."""

from pathlib import Path

import pytest
from handmade import config_of, encoded, extracted, trained
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.live import live_items
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encode import encode
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.on_ray.tokenize import tokenize
from pipeline.on_ray.training.tokenizer import train_tokenizer
from pipeline.on_spark.extract import extract
from pipeline.release.releases import publish, released_ids, require_release
from schemas.tables import SEMANTIC_IDS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]

SMALL = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=40",
    "gates={max_collision_rate: 1, min_perplexity: 0, max_delete_fraction: 1}",
    "encoders.commit_rows=100",
]


def test_what_overlapping_runs_wrote_twice_counts_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, gates={"max_collision_rate": 1, "min_perplexity": 0})
    lake, encoder = Lake(config.lake), encoder_fingerprint(config.encoders)
    night = {f"i{n}": f"content {n % 50}" for n in range(60)}
    extracted(lake, night)
    encoded(lake, sorted(set(night.values())), encoder)
    encoded(lake, sorted(set(night.values()))[:20], encoder)
    tokenizer = trained(lake, encoder)
    with Run("tokenize", config) as run:
        tokenize(run, tokenizer)
    assert run.counts["rows_out"] == 60
    assert sorted(lake.read(SEMANTIC_IDS, ["item_id"])["item_id"].to_pylist()) == sorted(night)
    lake.append(SEMANTIC_IDS, lake.read(SEMANTIC_IDS, SEMANTIC_IDS.schema.names).slice(0, 10))
    with Run("publish", config) as run:
        assert publish(run, tokenizer)
    assert released_ids(lake, require_release(lake), ["item_id"]).num_rows == 60


@pytest.mark.slow
@pytest.mark.spark
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

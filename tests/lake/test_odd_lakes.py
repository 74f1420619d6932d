"""What counts once though it is there twice, and catalogues that lack a modality."""

from pathlib import Path

import pytest
from handmade import config_of, encoded, extracted, identified, trained, writable
from nights import SETTINGS, encode_night, tokenize_night, train
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_spark.extract import extract
from pipeline.on_spark.publish import publish
from schemas.tables import ITEMS, SEMANTIC_IDS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]


def extract_night(spark: SparkSession, config: Config) -> Run:
    with Run("extract", config) as run:
        extract(spark, run)
    return run


@pytest.mark.slow
def test_what_was_written_twice_counts_once(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, gates={"max_collision_rate": 1, "min_perplexity": 0, "max_group": 1000})
    lake, encoders = writable(config.lake), encoder_fingerprints(config.encoders)
    night = {f"i{n}": f"content {n % 50}" for n in range(60)}
    extracted(lake, night)
    encoded(lake, sorted(set(night.values())), encoders)
    encoded(lake, sorted(set(night.values()))[:20], encoders)
    tokenizer = trained(lake, encoders)
    tokenize_night(spark, config, tokenizer, encoders)
    assert set(lake.read(SEMANTIC_IDS, ["item_id"])["item_id"].to_pylist()) == set(night)
    with Run("publish", config) as run:
        assert publish(spark, run, tokenizer)
    released = lake.released_ids().to_table().sort_by("item_id")
    assert released["item_id"].to_pylist() == sorted(night)
    identified(
        lake, tokenizer, {"i0": (1, 2, 3, 4)}, night
    )  # a second ID of the item, which must not win over the first
    with Run("publish", config) as run:
        publish(spark, run, tokenizer)
    assert lake.released_ids().count_rows() == 60


@pytest.mark.slow
def test_a_catalogue_of_texts_alone_and_pictures_that_come_later(spark: SparkSession, shop: Path) -> None:
    config = load_config(shop / "config.yaml", [*SETTINGS, "catalog.image=null"])
    encoders = encoder_fingerprints(config.encoders)
    extract_night(spark, config)
    encode_night(spark, config)
    tokenizer = train(spark, config)
    tokenize_night(spark, config, tokenizer, encoders)
    lake = Lake.open(config.lake)
    rows = lake.read(SEMANTIC_IDS, ["sid", "image", "has_image"])
    assert rows.num_rows == rows["image"].null_count == lake.rows(ITEMS)
    assert not any(rows["has_image"].to_pylist())
    assert all(".i" not in sid for sid in rows["sid"].to_pylist())

    pictured = load_config(shop / "config.yaml", SETTINGS)
    assert extract_night(spark, pictured).counts["changed"] > 0
    encode_night(spark, pictured)
    assert fingerprints(lake, "tokenizers") == [tokenizer]
    assert tokenize_night(spark, pictured, tokenizer, encoders).counts["rows_out"] > 0
    after = lake.read(SEMANTIC_IDS, ["item_id", "sid"])
    assert all(".i" not in sid for sid in after["sid"].to_pylist())  # the tokenizer never learned what pictures say

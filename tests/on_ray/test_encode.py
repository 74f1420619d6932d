"""What is encoded, and what is taken from the table: a text or an image once, whichever item has it."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.lake.live import live_items
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encode import encode
from pipeline.on_spark.extract import extract
from schemas.tables import EMBEDDINGS, ITEMS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]


def night(spark: SparkSession, config: Config) -> dict[str, int]:
    with Run("extract", config) as run:
        extract(spark, run)
    with Run("encode", config) as run:
        encode(run)
    return run.counts


def vectors(config: Config) -> dict[str, tuple[Any, Any]]:
    rows = Lake(config.lake).read(EMBEDDINGS, ["content_hash", "text_embedding", "image_embedding"]).to_pylist()
    found = {row["content_hash"]: (row["text_embedding"], row["image_embedding"]) for row in rows}
    assert len(found) == len(rows)
    return found


def distinct(config: Config, column: str) -> set[str]:
    return set(Lake(config.lake).read(ITEMS, [column])[column].drop_null().to_pylist())


def rewrite(catalogue: Path, change: Any) -> None:
    with catalogue.open(newline="") as file:
        rows = list(csv.DictReader(file))
    changed = change(rows)
    with catalogue.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(changed)


def test_an_edited_text_is_encoded_alone_and_what_items_share_once(
    spark: SparkSession, shop: Path, tmp_path: Path
) -> None:
    config = load_config(shop / "config.yaml", ["encoders.commit_rows=100"])
    catalogue = shop / config.catalog.source.path.rsplit("/", 1)[-1]
    assert config.catalog.image is not None
    key, picture = config.catalog.id, config.catalog.image.column
    first = night(spark, config)
    assert first["texts_encoded"] == len(distinct(config, "text_sha"))
    assert first["images_encoded"] == len(distinct(config, "image_sha"))

    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """Five texts edited, two of them alike; one picture takes the place of another; two new items with one new
        text, one of them with a picture that is known."""
        good = [row for row in rows if row[picture] and row["title"]]
        for number, row in enumerate(good[:5]):
            row["title"] = f"Edited {min(number, 3)}"
        good[6][picture] = good[7][picture]
        new = {**good[8], "title": "Quite new"}
        return [*rows, {**new, key: "new-1"}, {**new, key: "new-2", picture: good[9][picture]}]

    known = {name: distinct(config, name) for name in ("text_sha", "image_sha")}
    rewrite(catalogue, change)
    second = night(spark, config)
    assert second["texts_encoded"] == len(distinct(config, "text_sha") - known["text_sha"]) >= 5
    assert second["images_encoded"] == len(distinct(config, "image_sha") - known["image_sha"]) == 0
    assert second["rows_out"] == 8

    live = set(live_items(Lake(config.lake))["content_hash"].to_pylist())
    kept = {content: pair for content, pair in vectors(config).items() if content in live}
    shutil.rmtree(shop / "lake")
    night(spark, config)
    assert vectors(config) == kept

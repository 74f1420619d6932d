"""The rows of ``quarantine`` that follow from what encoders failed on."""

from pathlib import Path

import pyarrow as pa
import pytest
from handmade import become_run, config_of, extracted, shas
from pyspark.sql import SparkSession
from test_extract import catalogue, run

from pipeline.config.models import Config
from pipeline.lake.commit import append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.lake.vectors import forget_failures
from pipeline.on_spark.quarantine import quarantine_failed
from schemas.tables import ITEMS, QUARANTINE, VECTORS

pytestmark = pytest.mark.spark

ENCODERS = {"text": "t1", "image": "i1"}


def failed(lake: Lake, modality: str, content: str, fault: str, encoder: str | None = None) -> None:
    become_run(lake)
    sha = content if len(content) == 64 else shas(content)[f"{modality}_sha"]
    rows = [{"encoder": encoder or ENCODERS[modality], "sha": sha, "vector": None, "fault": fault}]
    append(lake, VECTORS, pa.Table.from_pylist(rows, schema=VECTORS.schema))


def quarantined(spark: SparkSession, config: Config) -> dict[str, str]:
    with Run("encode", config) as record:
        quarantine_failed(spark, record, ENCODERS)
    rows = Lake(config.lake).read(QUARANTINE, ["item_id", "reason", "detail"]).to_pylist()
    return {row["item_id"]: row["detail"] for row in rows if row["reason"] == "encoder_failed"}


def pictured(pictures: bool) -> list[str]:
    return [c for c in map(str, range(40)) if (shas(c)["image_sha"] is not None) == pictures]


def test_items_stand_in_quarantine_as_long_as_their_encoder_fails_on_them(spark: SparkSession, tmp_path: Path) -> None:
    config, lake = config_of(tmp_path), Lake.create(str(tmp_path / "lake"))
    (one, two, three, *_), (bare, *_) = pictured(True), pictured(False)
    extracted(lake, {"a": one, "again": one, "b": two, "c": three, "bare": bare})
    assert quarantined(spark, config) == {}
    assert not lake.exists(QUARANTINE)  # nothing failed, nothing is written

    failed(lake, "text", two, "not finite")
    failed(lake, "image", two, "zero")
    failed(lake, "image", one, "OSError: 7")
    failed(lake, "image", three, "zero", encoder="another")
    both = {"a": "image: OSError: 7", "again": "image: OSError: 7", "b": "image: zero; text: not finite"}
    assert quarantined(spark, config) == both
    version = lake.version(QUARANTINE)
    assert quarantined(spark, config) == both
    assert lake.version(QUARANTINE) == version

    extracted(lake, {"a": three, "again": None})
    assert quarantined(spark, config) == {"b": both["b"]}
    become_run(lake)
    forget_failures(lake, ENCODERS)
    assert quarantined(spark, config) == {}


@pytest.mark.slow
def test_what_an_encoder_failed_on_outlasts_nights_until_the_item_changes(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": i, "title": f"lamp {i}", "image": "none.jpg"} for i in ("a", "b")]
    config = catalogue(tmp_path / "shop", rows)
    config = config.model_copy(update={"gates": config.gates.model_copy(update={"max_degraded_fraction": 1.0})})
    run(spark, config)
    lake = Lake.open(config.lake)
    for sha in lake.read(ITEMS, ["text_sha"])["text_sha"].to_pylist():
        failed(lake, "text", sha, "not finite")
    assert quarantined(spark, config).keys() == {"a", "b"}
    version = lake.version(QUARANTINE)
    assert run(spark, config)["degraded"] == 2  # by their pictures, which the gate is there for
    assert lake.version(QUARANTINE) == version
    assert run(spark, config, verify_pictures=True)["skipped"] == 2
    assert lake.version(QUARANTINE) == version
    rows[0] |= {"title": "a chair"}
    catalogue(tmp_path / "shop", rows)
    run(spark, config)
    left = {(row["item_id"], row["reason"]) for row in lake.read(QUARANTINE, ["item_id", "reason"]).to_pylist()}
    assert left == {("a", "missing_image"), ("b", "missing_image"), ("b", "encoder_failed")}

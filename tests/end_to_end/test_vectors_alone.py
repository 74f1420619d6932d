"""Catalogues that bring their vectors: with neither text nor picture to released IDs, and beside an encoder of ours."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import config_of
from nights import run_night
from pyspark.sql import SparkSession

import pipeline.on_ray.session
from jobs.encode import run_encode
from jobs.extract import run_extract
from pipeline.config.models import Config
from pipeline.inspect.explain import explain
from pipeline.inspect.status import status
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, VECTORS

pytestmark = [pytest.mark.spark, pytest.mark.ray]

ITEM_COUNT, GROUPS, WIDTH = 80, 8, 12
TOKENIZER = {"shared_levels": 2, "text_levels": 1, "image_levels": 1, "codebook_size": 8, "dim": 16, "hidden": 32}
GATES = {"max_collision_rate": 1, "min_perplexity": 0, "max_code_share": 1000}


def catalogue(folder: Path, **sections: object) -> Config:
    """Vectors in groups: of the title as an array, of the picture, which every fourth item lacks, as bytes."""
    rng = np.random.default_rng(0)
    centres_GD = rng.normal(size=(2, GROUPS, WIDTH))
    rows = []
    for n in range(ITEM_COUNT):
        title_D, picture_D = centres_GD[:, n % GROUPS] + 0.1 * rng.normal(size=(2, WIDTH))
        picture = picture_D.astype("<f4").tobytes() if n % 4 else None
        rows.append({"id": f"i{n}", "title": f"thing {n}", "title_vector": title_D.tolist(), "picture_vector": picture})
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    source = {"path": str(folder / "items.parquet"), "format": "parquet"}
    encoders = {
        "text": {"column": "title_vector", "name": "theirs", "version": 3, "dim": WIDTH},
        "image": {"column": "picture_vector", "name": "theirs", "version": 3, "dtype": "float32"},
    }
    given = {"catalog": {"source": source, "id": "id"}, "encoders": encoders} | sections
    return config_of(folder, tokenizer=TOKENIZER | {"min_steps": 40}, gates=GATES, **given)


@pytest.mark.slow
def test_a_catalogue_of_vectors_alone_gets_its_ids(spark: SparkSession, ray: None, tmp_path: Path) -> None:
    config = catalogue(tmp_path)
    runs = run_night(spark, config)
    assert runs["extract"].counts["vectors"] == ITEM_COUNT + ITEM_COUNT * 3 // 4
    assert runs["encode"].counts.get("rows_out", 0) == 0
    assert runs["tokenize"].counts["rows_out"] == ITEM_COUNT
    lake = Lake.open(config.lake)
    ids = lake.released_ids().to_table(["item_id", "sid", "shared", "has_text", "has_image"]).to_pylist()
    assert sorted(row["item_id"] for row in ids) == sorted(f"i{n}" for n in range(ITEM_COUNT))
    assert all(row["has_text"] and row["has_image"] == (int(row["item_id"][1:]) % 4 > 0) for row in ids)
    assert len({tuple(row["shared"]) for row in ids}) > GROUPS // 2
    assert {(row["text"], row["image"]) for row in lake.read(ITEMS, ["text", "image"]).to_pylist()} == {(None, None)}
    found = explain(spark, lake, config, "i1")
    assert found["state"] == "released (release 1)"
    assert [vector["modality"] for vector in found["versions"][0]["vectors"]] == ["text", "image"]

    again = run_night(spark, config)
    assert again["extract"].counts["skipped"] == ITEM_COUNT
    assert not any(run.counts.get("rows_out") for run in again.values())
    waiting = status(spark, lake, config)["waiting"]
    assert [waiting[job]["items"] for job in ("encode", "tokenize", "publish")] == [0, 0, 0]


@pytest.mark.slow
def test_one_modality_may_come_with_the_catalogue_and_the_other_not(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    config = catalogue(tmp_path)
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> None:
            raise AssertionError("Ray was asked for, and there was nothing to encode")

        patched.setattr(pipeline.on_ray.session, "ray_session", refuse)
        run_extract(config)
        run_encode(config, retry_failed=True)

    request.getfixturevalue("ray")
    ours = {"text": {"model": "builtin"}, "image": config.encoders.image.model_dump()}
    mixed = catalogue(tmp_path, encoders=ours, catalog=config.catalog.model_dump() | {"text": "{title}"})
    assert explain(spark, Lake.open(config.lake), mixed, "i1")["state"] == "waits for extract"
    run_extract(mixed)
    run_encode(mixed)
    vectors = Lake.open(config.lake).read(VECTORS, ["encoder", "vector"]).to_pylist()
    widths = sorted((len(row["vector"]), row["encoder"]) for row in vectors)
    assert [width for width, _ in widths].count(384) == ITEM_COUNT  # those that the built-in encoder made of titles
    assert len(widths) == 2 * ITEM_COUNT + ITEM_COUNT * 3 // 4

"""IDs from a plan: code columns against the slow layout, and items that wait or go without a modality."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from handmade import (
    IMAGE_DIM,
    TEXT_DIM,
    become_run,
    config_of,
    content_name,
    described,
    encoded,
    extracted,
    identified,
    shas,
    trained,
    writable,
)
from hypothesis import given
from hypothesis import strategies as st
from nights import tokenize_night
from pyspark.sql import SparkSession
from slow_ids import spelled, split

from pipeline.lake.commit import append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.tokenize import code_columns
from pipeline.on_spark.retrying import retry_failures
from schemas.semantic_id import Layout
from schemas.tables import SEMANTIC_IDS, VECTORS

ENCODERS = {"text": "1" * 16, "image": "2" * 16}
LAYOUTS = st.builds(Layout, st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([2, 8, 32767]))


@st.composite
def rows_of_codes(draw: st.DrawFn) -> tuple[Layout, np.ndarray]:
    layout = draw(LAYOUTS)
    rows = draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes_NS = rng.integers(0, layout.codebook_size, (rows, layout.slots)).astype(np.int16)
    for part in ("text", "image"):
        codes_NS[rng.random(rows) < 0.3, layout.spans()[part]] = layout.absent
    return layout, codes_NS


@given(rows_of_codes())
def test_columns_of_codes_are_those_of_the_layout(drawn: tuple[Layout, np.ndarray]) -> None:
    layout, codes_NS = drawn
    columns = {name: column.to_pylist() for name, column in code_columns(codes_NS, layout).items()}
    for n, row in enumerate(codes_NS.tolist()):
        codes = split(row, layout)
        assert columns["sid"][n] == spelled(codes)
        for part in ("shared", "text", "image"):
            expected = getattr(codes, part)
            assert columns[part][n] == (None if expected is None else list(expected))


@pytest.mark.spark
@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_an_item_waits_for_its_vectors_has_them_once_and_goes_without_those_that_failed(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = config_of(tmp_path)
    lake = writable(config.lake)
    pictured = [f"content {n}" for n in range(40) if shas(f"content {n}")["image_sha"]][:4]
    whole, waiting, failed, hopeless = pictured
    extracted(lake, {content: content for content in pictured})
    encoded(lake, [whole], ENCODERS)
    rows = [
        ("text", shas(waiting)["text_sha"], False),  # its picture has not been tried
        ("text", shas(failed)["text_sha"], False),
        ("image", shas(failed)["image_sha"], True),
        ("text", shas(hopeless)["text_sha"], True),
        ("image", shas(hopeless)["image_sha"], True),
        ("text", shas(whole)["text_sha"], True),  # two plans did it, and one failed
        ("image", shas(whole)["image_sha"], False),
    ]
    add_vectors(lake, rows)
    tokenizer = trained(lake, ENCODERS)
    run = tokenize_night(spark, config, tokenizer, ENCODERS)
    assert run.counts == {"rows_in": 4, "unencoded": 2, "rows_out": 2}
    found = {row["item_id"]: row for row in lake.read(SEMANTIC_IDS, SEMANTIC_IDS.schema.names).to_pylist()}
    assert {item: (row["has_text"], row["has_image"]) for item, row in found.items()} == {
        whole: (True, True),
        failed: (True, False),
    }
    assert found[whole]["content"] == content_name(whole)
    assert (found[failed]["image"], ".i" in found[failed]["sid"]) == (None, False)

    other = described(lake, "b" * 16)  # whose encoders did not fail
    identified(lake, other, {failed: (0, 0, 0, None)}, {failed: failed})
    with Run("encode", config) as run:
        retry_failures(spark, run, ENCODERS)
    assert run.counts == {"semantic_ids": 1}
    left = lake.read(SEMANTIC_IDS, ["item_id", "tokenizer"]).to_pylist()
    assert sorted((row["item_id"], row["tokenizer"]) for row in left) == sorted([(whole, tokenizer), (failed, other)])
    add_vectors(lake, [("image", shas(failed)["image_sha"], False)])
    assert tokenize_night(spark, config, tokenizer, ENCODERS).counts["rows_out"] == 1
    found = lake.read(SEMANTIC_IDS, SEMANTIC_IDS.schema.names, where=ds.field("tokenizer") == tokenizer).to_pylist()
    assert {row["item_id"]: row["has_image"] for row in found} == {whole: True, failed: True}


def add_vectors(lake: Lake, rows: Sequence[tuple[str, str | None, bool]]) -> None:
    """Vectors by modality and hash, or failures."""
    become_run(lake)
    widths = {"text": TEXT_DIM, "image": IMAGE_DIM}
    found = [
        {"encoder": ENCODERS[m], "sha": sha} | ({"fault": "bad"} if bad else {"vector": [1.0] * widths[m]})
        for m, sha, bad in rows
    ]
    append(lake, VECTORS, pa.Table.from_pylist(found, schema=VECTORS.schema))

"""Mutated pictures, texts, keys and references through the very function that Spark's workers run.

Whatever comes in: no crash, no hang, bounded memory, and every row comes out as an item or rejected, for a declared
reason that is not a bug of ours.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import EDGES, FRAGMENTS, KINDS, Mutation, encoded, mutated, random_mutation, random_text, valid_pictures
from PIL import Image
from pyspark.sql import SparkSession
from test_extract import catalogue, reasons, run, stored
from watched_worker import KNOWN, WatchedWorker

from pipeline.config.models import Catalog, ImageSource, Source
from schemas.reasons import Reason

SIZE, MAX_BYTES, MAX_PIXELS = 64, 200_000, 2_000_000
MAX_MEMORY = 700 * 2**20  # imports are 300 MB of it
PICTURES = list(valid_pictures().values())
OF_IMAGES = {Reason.IMAGE_DECODE, Reason.IMAGE_TOO_LARGE}
OF_ROWS = set(Reason) - OF_IMAGES - {Reason.DUPLICATE_ID, Reason.INTERNAL}
ANY = st.integers(0, 2**20)
BYTES = st.one_of(st.sampled_from(EDGES), st.binary(min_size=1, max_size=16))
MUTATION = st.one_of(
    st.tuples(st.sampled_from([kind for kind in KINDS if kind != "splice"]), ANY, st.integers(1, 200), BYTES),
    st.tuples(st.just("splice"), ANY, ANY, st.sampled_from(PICTURES)),
)
TEXT = st.one_of(
    st.none(),
    st.text(max_size=30),
    st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "replace")),
    st.builds(
        lambda parts, n: "".join(parts) * n, st.lists(st.sampled_from(FRAGMENTS), max_size=6), st.integers(1, 60)
    ),
)
EVERY = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


def by_bytes() -> Catalog:
    image = ImageSource(column="image", size=SIZE, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    return Catalog(source=Source(path="-", format="parquet"), id="id", text="{title}. {body}", image=image)


@pytest.fixture(scope="module")
def pictures_worker() -> Iterator[WatchedWorker]:
    worker = WatchedWorker(by_bytes())
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def rows_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedWorker]:
    root = tmp_path_factory.mktemp("root") / "pictures"
    root.mkdir()
    (root / "good.jpg").write_bytes(encoded(Image.new("RGB", (8, 8), "red"), "JPEG"))
    image = by_bytes().image
    assert image is not None
    worker = WatchedWorker(by_bytes().model_copy(update={"image": image.model_copy(update={"root": str(root)})}))
    yield worker
    worker.stop()


def a_row(number: int = 0, item_id: str | None = "i", **values: Any) -> dict[str, Any]:
    row = {"row": number, "item_id": item_id, "row_hash": "hash", "fields": {"title": None, "body": None}}
    return row | values


def is_sound(worker: WatchedWorker, rows: list[dict[str, Any]], allowed: set[Reason]) -> None:
    """Every row is an item with a small picture or rejected for an allowed reason, and the same when seen again."""
    found = worker(rows)
    assert [row["row"] for row in found] == [row["row"] for row in rows]
    for row in found:
        assert {fault["reason"] for fault in row["faults"]} <= allowed
        assert all(len(fault["detail"]) <= 500 and fault["detail"].isprintable() for fault in row["faults"])
        if row["status"] == "rejected":
            assert row["faults"]
            assert row["text"] is None is row["image"]
            continue
        assert row["status"] == "new"
        assert row["text"] or row["image"]
        assert len(row["text"] or "") <= 20_000
        if row["image"]:
            image = Image.open(io.BytesIO(row["image"]))
            image.load()
            assert (image.format, image.mode, max(image.size) <= SIZE) == ("JPEG", "RGB", True)
            assert len(row["image"]) <= 3 * SIZE * SIZE + 1000
    known = [{name: row[name.removeprefix("known_")] for name in KNOWN} for row in found]
    for status, before in (
        ("unchanged", known),
        ("refreshed", [row | {"known_row_hash": "another"} for row in known]),  # each decoded once more
    ):
        again = worker([row | old for row, old in zip(rows, before, strict=True)])
        assert [row["status"] for row in again] == [{"new": status}.get(row["status"], "rejected") for row in found]
    assert worker.peak_bytes < MAX_MEMORY


def fuzz_pictures(worker: WatchedWorker, examples: int) -> None:
    @settings(EVERY, max_examples=examples)
    @given(st.sampled_from(PICTURES), st.lists(MUTATION, min_size=1, max_size=4), st.booleans())
    def check(picture: bytes, mutations: list[Mutation], whole: bool) -> None:
        data = mutated(picture, mutations, whole=whole)
        allowed = OF_IMAGES if data else {Reason.EMPTY}
        is_sound(worker, [a_row(image=data if len(data) <= MAX_BYTES else None, image_bytes=len(data))], allowed)

    check()


def fuzz_rows(worker: WatchedWorker, examples: int) -> None:
    @settings(EVERY, max_examples=examples)
    @given(TEXT, TEXT, TEXT, TEXT, st.one_of(st.none(), st.just("1,a,b,c")))
    def check(item_id: str | None, title: str | None, body: str | None, path: str | None, bad: str | None) -> None:
        row = a_row(item_id=item_id, fields={"title": title, "body": body}, reference=path, bad_row=bad)
        is_sound(worker, [row], OF_ROWS | {Reason.IMAGE_DECODE})  # a reference may lead to a folder's name, or nowhere

    check()


def test_valid_pictures_become_items(pictures_worker: WatchedWorker) -> None:
    names = list(valid_pictures())
    found = pictures_worker([a_row(i, image=data, image_bytes=len(data)) for i, data in enumerate(PICTURES)])
    refused = {name for name, row in zip(names, found, strict=True) if row["status"] != "new"}
    assert refused == {"jpeg 2000", "ico", "tga", "ppm"}


def test_mutated_pictures(pictures_worker: WatchedWorker) -> None:
    fuzz_pictures(pictures_worker, 300)


def test_mutated_texts_keys_and_references(rows_worker: WatchedWorker) -> None:
    fuzz_rows(rows_worker, 300)


@pytest.mark.slow
def test_ten_thousand_mutated_pictures(pictures_worker: WatchedWorker) -> None:
    fuzz_pictures(pictures_worker, 10_000)


@pytest.mark.slow
def test_ten_thousand_mutated_texts_keys_and_references(rows_worker: WatchedWorker) -> None:
    fuzz_rows(rows_worker, 10_000)


@pytest.mark.slow
@pytest.mark.spark
def test_ten_thousand_mutated_rows_add_up_on_spark(spark: SparkSession, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = []
    for i in range(10_000):
        mutations = [random_mutation(rng, PICTURES) for _ in range(rng.randint(1, 3))]
        image = mutated(rng.choice(PICTURES), mutations, whole=rng.random() < 0.5)
        item_id = random_text(rng) if rng.random() < 0.3 else str(rng.randrange(9000))
        rows.append({"id": item_id, "title": random_text(rng), "image": image or None, "number": i})
    source = {"path": "items.parquet", "format": "parquet"}
    config = catalogue(tmp_path / "fuzz", [], source=source, image={"column": "image", "max_pixels": MAX_PIXELS})
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "fuzz" / "items.parquet")
    config = config.model_copy(update={"gates": config.gates.model_copy(update={"max_degraded_fraction": 1.0})})
    counts = run(spark, config)
    assert counts["rows_in"] == 10_000
    assert counts["rows_out"] == stored(config).num_rows > 1000
    assert counts["quarantined"] > 100
    assert set(reasons(config).values()) <= set(Reason) - {Reason.INTERNAL}

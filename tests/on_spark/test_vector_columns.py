"""Vectors that come with the catalogue: what is taken, what is quarantined, and when they are read again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import config_of
from pyspark.sql import SparkSession
from test_extract import current, jpeg, reasons, run, stored

import pipeline.on_spark.extract as extracting
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.plans import plan_encoding
from pipeline.on_spark.purge import purge
from pipeline.on_spark.vector_columns import VectorFault, VectorReader, vector_sha
from schemas.tables import ITEMS, QUARANTINE, VECTORS

FLOATS, BYTES = pa.list_(pa.float32()), pa.binary()
NAN = float("nan")


def catalogue(
    folder: Path, rows: Sequence[Mapping[str, Any]], kind: pa.DataType = FLOATS, catalog: Any = None, **column: Any
) -> Config:
    """A Parquet file of ``id``, ``title``, ``image`` and vectors ``v`` that stand for the text."""
    types = {"id": pa.string(), "title": pa.string(), "image": pa.string(), "v": kind}
    pq.write_table(pa.Table.from_pylist([*rows], schema=pa.schema([*types.items()])), folder / "items.parquet")
    source = {"path": str(folder / "items.parquet"), "format": "parquet"}
    text = {"column": "v", "name": "ours", "version": 1} | column
    return config_of(folder, catalog={"source": source, "id": "id"} | (catalog or {}), encoders={"text": text})


def vectors(config: Config, encoder: str | None = None) -> dict[str, list[float]]:
    rows = stored(config, VECTORS).to_pylist()
    assert all(row["fault"] is None for row in rows)
    return {row["sha"]: row["vector"] for row in rows if encoder in (None, row["encoder"])}


def text_fingerprint(config: Config) -> str:
    return config.encoders.vector_columns["text"].fingerprint("text")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([1.0, 2.0], "width of the vector is 2, of its encoder's 3"),
        ([0.0] * 65_537, "width of the vector is more than 65,536"),
        ([1.0, None, 2.0], "missing or not finite"),
        ([1.0, NAN, 2.0], "missing or not finite"),
        ([1.0, float("-inf"), 2.0], "missing or not finite"),
        ([0.0, -0.0, 0.0], "v: the vector is zero"),
    ],
)
def test_a_vector_that_cannot_be_used_is_told(given: list[float | None], fault: str) -> None:
    reader = VectorReader("v", None, 3)
    (numbers,) = reader.numbers(pa.array([given], pa.list_(pa.float64())))
    assert numbers is not None
    with pytest.raises(VectorFault, match=fault):
        reader.canonical(numbers)


def test_a_vector_is_known_by_its_direction_whatever_held_it() -> None:
    directions = [[3.0, 0.0, 4.0], [3e300, -0.0, 4e300], [3e-300, 0.0, 4e-300]]
    rows = VectorReader("v", None, 3).numbers(pa.array([None, *directions], pa.list_(pa.float64())).slice(0, 4))
    assert rows[0] is None
    names = {vector_sha(VectorReader("v", None, 3).canonical(row)) for row in rows[1:] if row is not None}
    for dtype in ("float16", "float32", "float64"):
        reader = VectorReader("v", dtype, 3)
        (packed,) = reader.numbers(pa.array([np.array([3, 0, 4], np.dtype(dtype).newbyteorder("<")).tobytes()]))
        assert packed is not None
        names.add(vector_sha(reader.canonical(packed)))
    assert len(names) == 1
    assert names.pop().startswith("v")
    (torn,) = VectorReader("v", "float32", 3).numbers(pa.array([b"abcde"]))
    with pytest.raises(VectorFault, match="5 bytes are no whole number of float32"):
        VectorReader("v", "float32", 3).canonical(torn)  # type: ignore[arg-type]


@pytest.mark.spark
def test_a_bad_vector_costs_its_item_that_modality_and_no_more(spark: SparkSession, tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg")
    rows = [
        {"id": "good", "title": "A lamp", "image": "a.jpg", "v": [3, 0, 4]},
        {"id": "alike", "title": "Another lamp", "v": [6, 0, 8]},
        {"id": "third", "v": [0, 0, 1]},
        {"id": "none", "title": "A lamp", "image": "a.jpg", "v": None},
        {"id": "hollow", "title": "A lamp", "image": "a.jpg", "v": []},
        {"id": "short", "image": "a.jpg", "v": [1, 2]},
        {"id": "nan", "image": "a.jpg", "v": [1, NAN, 2]},
        {"id": "zero", "image": "a.jpg", "v": [0, 0, 0]},
        {"id": "gap", "v": [1, None, 2]},
        {"id": "nothing", "title": "A lamp", "v": None},
    ]
    section = {"text": "{title}", "image": {"column": "image", "root": str(tmp_path)}}
    config = catalogue(tmp_path, rows, catalog=section)
    counts = run(spark, config)
    assert (counts["new"], counts["quarantined"], counts["degraded"], counts["vectors"]) == (8, 2, 3, 2)
    bad = dict.fromkeys(("short", "nan", "zero", "gap"), "bad_vector")
    assert reasons(config) == bad | {"nothing": "empty"}
    details = {row["item_id"]: row["detail"] for row in stored(config, QUARANTINE).to_pylist()}
    assert details["short"] == "v: the width of the vector is 2, of its encoder's 3"
    assert details["nothing"] == "the item has neither text nor image, and no vector in v"
    items = current(config)
    assert {item for item, row in items.items() if row["text_sha"]} == {"good", "alike", "third"}
    assert items["good"]["text"] == "A lamp"
    assert items["good"]["text_sha"] == items["alike"]["text_sha"]
    given = vectors(config)
    assert given.keys() == {items["good"]["text_sha"], items["third"]["text_sha"]}
    assert given[items["good"]["text_sha"]] == np.array([0.6, 0, 0.8], np.float16).tolist()

    mended = [row | {"v": [1, 2, 3]} if row["id"] == "short" else row for row in rows]
    assert run(spark, catalogue(tmp_path, mended, catalog=section))["changed"] == 1
    assert "short" not in reasons(config)
    assert len(vectors(config)) == 3


@pytest.mark.spark
@pytest.mark.slow
def test_a_new_version_reads_every_row_and_an_unchanged_night_none(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(n), "v": [float(n), 1.0]} for n in range(6)]
    config = catalogue(tmp_path, rows)
    assert run(spark, config)["vectors"] == 6
    items, versions = current(config), [Lake(config.lake).version(table) for table in (ITEMS, VECTORS)]

    def refuse(*_: object) -> None:
        raise AssertionError("a worker was asked about a row that is as it was")

    with monkeypatch.context() as patched:
        patched.setattr(extracting, "prepare", refuse)
        assert run(spark, config)["skipped"] == 6
    assert [Lake(config.lake).version(table) for table in (ITEMS, VECTORS)] == versions

    bumped = catalogue(tmp_path, rows, version=2)
    counts = run(spark, bumped)
    assert (counts["refreshed"], counts["vectors"]) == (6, 6)
    assert {item: row["text_sha"] for item, row in current(bumped).items()} == {
        item: row["text_sha"] for item, row in items.items()
    }
    assert vectors(bumped, text_fingerprint(bumped)) == vectors(config, text_fingerprint(config))

    edited = catalogue(tmp_path, [rows[0] | {"v": [5.0, -1.0]}, *rows[1:5]], version=2)
    counts = run(spark, edited)
    assert (counts["changed"], counts["skipped"], counts["deleted"], counts["vectors"]) == (1, 4, 1, 1)
    with Run("purge", edited) as record:
        purge(spark, record, 0)
    assert record.counts["vectors"] == 4  # of two items, under two versions


@pytest.mark.spark
def test_a_run_that_dies_after_its_vectors_is_made_whole_by_the_next(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = catalogue(tmp_path, [{"id": str(n), "v": [float(n), 1.0]} for n in range(4)])

    def dies(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(extracting, "new_versions", dies)
        with pytest.raises(OSError, match="the disk is gone"):
            run(spark, config)
    assert len(vectors(config)) == 4
    assert not Lake(config.lake).exists(ITEMS)
    counts = run(spark, config)
    assert (counts["new"], counts["vectors"]) == (4, 0)
    assert stored(config, VECTORS).num_rows == 4


@pytest.mark.spark
def test_bytes_are_read_as_their_dtype_and_given_to_no_encoder(spark: SparkSession, tmp_path: Path) -> None:
    rows = [{"id": "a", "v": np.array([3, 0, 4], "<f2").tobytes()}, {"id": "b", "v": b"\0" * 5}, {"id": "c", "v": b""}]
    config = catalogue(tmp_path, rows, BYTES, dtype="float16")
    assert run(spark, config)["new"] == 1
    assert reasons(config) == {"b": "bad_vector", "c": "empty"}
    assert [*vectors(config).values()] == [np.array([0.6, 0, 0.8], np.float16).tolist()]
    with Run("encode", config) as record:  # once another encoder is configured, before the catalogue is read again
        assert plan_encoding(spark, record, {"text": "0" * 16}).rows == 0
        assert plan_encoding(spark, record, {}).rows == 0
    with pytest.raises(ConfigError, match=r"encoders.text.dim: 4 is given, but the lake has vectors of ours 1 of 3"):
        run(spark, catalogue(tmp_path, rows, BYTES, dtype="float16", dim=4))
    with pytest.raises(JobError, match=r"none of the 3 rows .* 2 for bad_vector"):
        run(spark, catalogue(tmp_path, rows, BYTES, dtype="float16", dim=4, version=2))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("kind", "column", "catalog", "fault"),
    [
        (BYTES, {}, {}, "encoders.text.dtype: column 'v' holds bytes, so say what they are: float16, float32, float64"),
        (pa.string(), {}, {}, "encoders.text.column: column 'v' holds string, but vectors are"),
        (FLOATS, {"column": "w"}, {}, "encoders.text.column: there is no column 'w'; the source has id, title, image"),
    ],
)
def test_a_column_that_holds_no_vectors_is_refused(
    spark: SparkSession, tmp_path: Path, kind: pa.DataType, column: Any, catalog: Any, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        run(spark, catalogue(tmp_path, [], kind, catalog, **column))


@pytest.mark.spark
def test_pictures_beside_their_vectors_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    config = catalogue(tmp_path, [], catalog={"image": {"column": "image", "root": str(tmp_path)}})
    swapped = config.encoders.model_copy(update={"image": config.encoders.text})
    with pytest.raises(ConfigError, match=r"catalog.image: encoders.image reads the vectors of column 'v'"):
        run(spark, config.model_copy(update={"encoders": swapped}))

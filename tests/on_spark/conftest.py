"""What tests on Spark share: the rows that reach Python, and a lake whose tables are of every form of Delta."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from delta_rows import IN_STORE
from lamps import Seen
from pyspark.sql import SparkSession
from writing import as_writer

import pipeline.on_spark.extract as extracting
from pipeline.config.models import SparkSettings
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.prepare import Prepare


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Gives the ids of the rows that reached Python since it was asked last."""
    folder = tmp_path / "seen"
    folder.mkdir()

    class Noted(Prepare):  # a class of a function travels to the workers whole
        def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                (folder / uuid.uuid4().hex).write_text(json.dumps(batch.column("item_id").to_pylist()))
                yield from Prepare.__call__(self, iter([batch]))

    def ids() -> list[str | None]:
        found = [item for file in folder.iterdir() for item in json.loads(file.read_text())]
        shutil.rmtree(folder)
        folder.mkdir()
        return sorted(found, key=str)

    monkeypatch.setattr(extracting, "Prepare", Noted)
    return ids


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("native", marks=[pytest.mark.native_delta, pytest.mark.slow]),
        IN_STORE,
    ]
)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lake(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if form == "s3":
        return as_writer(Lake.create(f"s3://lakes/{uuid.uuid4().hex}", request.getfixturevalue("s3")))
    return as_writer(Lake.create(str(tmp_path / "my l\u00e4ke")))


@pytest.fixture
def tables(form: str, spark: SparkSession, lake: Lake) -> SparkDelta:
    return spark_delta(spark, lake, SparkSettings(delta="native" if form == "native" else "embedded"))

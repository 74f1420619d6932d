"""Files that are empty, ragged, torn, in a wrong encoding, or of other columns and types than the night before."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from test_extract import catalogue, current, run
from watched_worker import KNOWN

from pipeline.config.file import load_config
from pipeline.config.models import Catalog, Config, Source
from pipeline.errors import ConfigError, GateRefused, JobError
from pipeline.lake.storage import Lake
from pipeline.on_spark.interactions import read_events
from pipeline.on_spark.prepare import Prepare
from pipeline.on_spark.raw_items import raw_items
from pipeline.on_spark.sources import read_source
from schemas.tables import ITEMS

pytestmark = pytest.mark.spark

HEAD = b"id,title,image\n"
BROKEN = pa.array([b"whole", b"\xff\xfe"], pa.binary())


def read(spark: SparkSession, path: Path, kind: str, **source: Any) -> list[tuple[str, str | None, str]]:
    """``(item_id, text, reason)`` of every row, prepared in this process."""
    options = {"header": True} if kind == "csv" and "columns" not in source else {}
    catalog = Catalog(source=Source(path=str(path), format=kind, options=options, **source), id="id", text="{title}")
    frame = raw_items(read_source(spark, catalog.source, "catalog.source", ids=[catalog.id]), catalog, spark)
    rows = [row.asDict(recursive=True) | dict.fromkeys(KNOWN) for row in frame.collect()]
    prepare = Prepare(catalog)
    batch = pa.RecordBatch.from_pylist(rows, schema=pa.schema([*BATCH])) if rows else None
    found = [out for batches in prepare([batch] if batch else []) for out in batches.to_pylist()]
    return [(r["item_id"], r["text"], " ".join(fault["reason"] for fault in r["faults"])) for r in found]


BATCH = [
    ("row", pa.int64()),
    *((name, pa.string()) for name in ("item_id", "bad_row", "row_hash", "picture_stat", *KNOWN)),
    ("fields", pa.struct([("title", pa.string())])),
    ("image", pa.binary()),
    ("image_bytes", pa.int64()),
]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (HEAD, []),
        (
            HEAD + b"1,A,a\n2,B\n3,C,c,more\n\n   \n4,a\nlamp,d\n",
            [
                ("1", "A", ""),
                *((i, None, "bad_row") for i in ("2", "3", "", "4", "lamp")),
            ],
        ),
        (
            b"\xef\xbb\xbf" + b'id,title,image\r\n1,"two\r\nlines",a\r\n2,"a ""b"", c",\r\n',
            [("1", "two lines", ""), ("2", 'a "b", c', "")],
        ),
        (b"id,title,image\r1,A,a\r", [("1", "A", "")]),
        (
            HEAD + b"1,caf\xe9 au lait in a cup of blue glass,\ncaf\xe9,B,\n",
            [("1", "caf\ufffd au lait in a cup of blue glass", ""), ("caf\ufffd", None, "bad_id")],
        ),
        (
            HEAD + b"1," + b"x" * 10_000_000 + b",\n" + b"y" * 10_000_000 + b",B,\n",
            [("1", "x" * 20_000, ""), ("y" * 1024 + "…", None, "bad_id")],
        ),
        (HEAD + b'1,"never closed,a\n2,B,b\n', [("1", None, "bad_row")]),
        (b"image,id,extra,title\na,1,x,A\n", [("1", "A", "")]),
    ],
    ids=["empty", "header", "ragged", "bom crlf quotes", "old mac", "latin 1", "10 MB", "open quote", "other order"],
)
def test_csv(spark: SparkSession, tmp_path: Path, content: bytes, expected: list[tuple[str, str | None, str]]) -> None:
    (tmp_path / "items").write_bytes(content)
    assert read(spark, tmp_path / "items", "csv") == expected


def test_files_without_names_keep_their_bad_rows(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "items").write_bytes(b"1,A\n2\n3,C,c\n")
    rows = read(spark, tmp_path / "items", "csv", columns=["id", "title"])
    assert rows == [("1", "A", ""), ("2", None, "bad_row"), ("3", None, "bad_row")]
    (tmp_path / "none").write_bytes(b"")
    assert read(spark, tmp_path / "none", "csv", columns=["id", "title"]) == []


def test_parquet_with_broken_strings_and_numbers_as_ids(spark: SparkSession, tmp_path: Path) -> None:
    for name, ids in {"text": BROKEN.view(pa.string()), "binary": BROKEN}.items():
        pq.write_table(pa.table({"id": ids, "title": BROKEN.view(pa.string())}), tmp_path / name)
        assert read(spark, tmp_path / name, "parquet") == [("whole", "whole", ""), ("\ufffd\ufffd", None, "bad_id")]
    numbers = pa.table({"id": [1.0, 2.5, None, float("nan"), 1e7], "title": ["A"] * 5})
    pq.write_table(numbers, tmp_path / "numbers")
    assert [row[0] for row in read(spark, tmp_path / "numbers", "parquet")] == ["1", "2.5", "", "", "10000000"]


def night(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / "items")


def refused(spark: SparkSession, config: Config, kind: type[JobError], why: str) -> None:
    before = Lake(config.lake).version(ITEMS), len(current(config))
    with pytest.raises(kind, match=why):
        run(spark, config)
    assert (Lake(config.lake).version(ITEMS), len(current(config))) == before


@pytest.mark.slow
def test_nights_whose_files_change_their_form(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "nights"
    config = catalogue(folder, [], source={"path": "items", "format": "parquet"}, image=None)
    titles = ["A", "B", "C"]
    night(folder, pa.table({"id": [1, 2, 3], "title": titles}))
    assert run(spark, config)["new"] == 3
    night(folder, pa.table({"added": [True] * 4, "title": [*titles, "D"], "id": [1.0, 2.0, 3.0, None]}))
    counts = run(spark, config)
    assert (counts["skipped"], counts["quarantined"], counts["deleted"]) == (3, 1, 0)
    night(folder, pa.table({"id": ["3", "2", "1"], "title": titles[::-1]}))
    assert run(spark, config)["skipped"] == 3

    refused(spark, as_csv(folder, b""), GateRefused, "3 of 3 live items are absent")
    refused(spark, as_csv(folder, HEAD), GateRefused, "3 of 3 live items are absent")
    assert GateRefused.exit_status == 3
    night(folder, pa.table({"id": [1, 2, 3], "name": titles}))
    refused(spark, config, ConfigError, "there is no column 'title'; the source has id, name")
    whole = (folder / "items").read_bytes()
    (folder / "items").write_bytes(whole[: len(whole) // 2])
    refused(spark, config, JobError, r"catalog.source: \[FAILED_READ_FILE.* mend the file")


def as_csv(folder: Path, content: bytes) -> Config:
    (folder / "items.csv").write_bytes(content)
    csv = ["catalog.source={path: items.csv, format: csv, options: {header: true}}"]
    return load_config(folder / "hisam.yaml", csv)


def test_an_empty_file_in_an_empty_lake_is_an_empty_night(spark: SparkSession, tmp_path: Path) -> None:
    catalogue(tmp_path / "new", [], image=None)
    counts = run(spark, as_csv(tmp_path / "new", b""))
    assert set(counts.values()) == {0}


def test_files_of_one_night_must_agree(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    config = catalogue(folder, [], source={"path": "items", "format": "csv", "options": {"header": True}}, image=None)
    (folder / "items").mkdir()
    (folder / "items" / "a.csv").write_bytes(b"id,title\n1,A\n")
    (folder / "items" / "b.csv").write_bytes(b"title,id\nB,2\n")
    with pytest.raises(JobError, match=r"catalog.source: .*(a|b)\.csv.*does not conform to the schema"):
        run(spark, config)


def test_events_find_items_whose_ids_are_floating_numbers(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [7.0], "item": [1.0], "at": [1], "stars": [5]}), tmp_path / "events")
    folder = tmp_path / "shop"
    catalogue(folder, [])
    events = {"source": {"path": str(tmp_path / "events"), "format": "parquet"}, "user": "user", "item": "item"}
    events |= {"time": {"column": "at"}, "label": "stars > 3"}
    config = load_config(folder / "hisam.yaml", [f"interactions={re.sub('None', 'null', str(events))}"])
    assert config.interactions is not None
    (event,) = read_events(spark, config.interactions).collect()
    assert (event["user_id"], event["item_id"]) == ("7", "1")

"""Logs of interactions as people have them: times of every type and unit, and what is said of those that are none."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import config_of
from pyspark.sql import SparkSession

from pipeline.config.models import Interactions
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.on_spark.event_checks import check_events
from pipeline.on_spark.interactions import read_events

pytestmark = pytest.mark.spark

SECOND = 1_735_700_751
MOMENT = SECOND * 1000
NOON = dt.datetime(2025, 1, 1, 3, 5, 51, tzinfo=dt.UTC)


def section(path: Path, kind: str = "parquet", unit: str = "s", **options: Any) -> Interactions:
    source = {"path": str(path), "format": kind, "options": options}
    time = {"column": "at", "unit": unit}
    return Interactions.model_validate(
        {"source": source, "user": "user", "item": "item", "time": time, "label": "true"}
    )


def parquet(folder: Path, times: pa.Array) -> Path:
    ids = pa.array(["a"] * len(times))
    pq.write_table(pa.table({"user": ids, "item": ids, "at": times}), folder / "log.parquet", version="2.6")
    return folder / "log.parquet"


def csv(folder: Path, times: list[str]) -> Path:
    (folder / "log.csv").write_text("user,item,at\n" + "".join(f"u,i,{time}\n" for time in times))
    return folder / "log.csv"


def checked(spark: SparkSession, folder: Path, settings: Interactions) -> Run:
    run = Run("sequences", config_of(folder))
    check_events(run, read_events(spark, settings), settings)
    return run


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pa.array([NOON], pa.timestamp("us", "UTC")), "ms"),
        (pa.array([NOON], pa.timestamp("us")), "s"),
        (pa.array([NOON], pa.timestamp("ns")), "timestamp"),
        (pa.array([NOON], pa.timestamp("ns", "UTC")), "s"),
        (pa.array([SECOND]), "timestamp"),
        (pa.array([MOMENT]), "ms"),
        (pa.array([SECOND, None], pa.float64()), "s"),
        (pa.array([str(SECOND)]), "s"),
        (pa.array(["2025-01-01T03:05:51Z", "2024-12-31 22:05:51-05:00", "2025-01-01 12:05:51+0900"]), "timestamp"),
    ],
    ids=str,
)
def test_times_are_read_whatever_their_type(spark: SparkSession, tmp_path: Path, times: pa.Array, unit: str) -> None:
    found = read_events(spark, section(parquet(tmp_path, times), unit=unit)).collect()
    assert [row.time for row in found] == [None if time is None else MOMENT for time in times.to_pylist()]


def test_a_date_is_midnight_in_utc(spark: SparkSession, tmp_path: Path) -> None:
    dates = pa.array([dt.date(2025, 1, 1), dt.date(2025, 1, 2)])
    found = read_events(spark, section(parquet(tmp_path, dates), unit="ms")).collect()
    assert [row.time for row in found] == [1_735_689_600_000, 1_735_776_000_000]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_a_label_that_is_no_number_says_nothing(spark: SparkSession, tmp_path: Path, kind: pa.DataType) -> None:
    log = pa.table({"user": ["a"] * 4, "item": ["a"] * 4, "at": [SECOND] * 4})
    log = log.append_column("clicked", pa.array([0.0, 1.0, float("nan"), None], kind))
    pq.write_table(log, tmp_path / "log.parquet")
    settings = section(tmp_path / "log.parquet").model_copy(update={"label": "clicked"})
    assert [row.label for row in read_events(spark, settings).collect()] == [0, 1, None, None]


GERMAN = "31.12.2025 13:00"


@pytest.mark.parametrize(
    ("times", "unit", "said"),
    [
        ([f"{MOMENT}"], "s", r"times lie in year 56,97\d \(1 of 1 values, such as '1735700751000'\): is the unit ms\?"),
        ([f"{MOMENT}"] * 3 + [f"{SECOND}"], "s", r"times lie in year 56,97\d \(3 of 4 .*is the unit ms\?"),
        ([f"{SECOND}"], "ms", r"times lie in year 1,970 .*is the unit s\?"),
        ([f"{MOMENT}000"], "ms", r"times lie in year 56,97\d .*are these microseconds\? Write milliseconds"),
        ([f"{MOMENT}000000"], "s", r"no value could be read as a time, such as .*are these nanoseconds\? Write milli"),
        ([f"{SECOND}"], "timestamp", r"no value could be read as a time, such as '1735700751'; is the unit s\?"),
        ([f"{MOMENT}"], "timestamp", r"no value could be read as a time, such as '1735700751000'; is the unit ms\?"),
        (
            [GERMAN, "12/31/2025 13:00"],
            "timestamp",
            r"no value could .*such as '12/31/2025 13:00'; a time lies",
        ),
        (["2025-12-31 13:00:00"], "s", r"no value could be read as a time, .*is the unit timestamp\?"),
        ([f'"{SECOND},751"'], "s", r"no value could be read as a time, such as '1735700751,751'"),
        ([GERMAN] * 2 + ["2025-12-31"], "timestamp", r"2 of 3 values could not be read as a time, such as '31\.12\."),
        (["", " "], "s", "no row has a value"),
    ],
    ids=str,
)
def test_times_that_are_none_or_of_another_unit_are_refused(
    spark: SparkSession, tmp_path: Path, times: list[str], unit: str, said: str
) -> None:
    with pytest.raises(JobError, match=rf"interactions.time: column 'at' with unit '{unit}': {said}"):
        checked(spark, tmp_path, section(csv(tmp_path, times), "csv", unit, header=True))


def test_some_times_that_are_none_are_told_and_counted(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = csv(tmp_path, [GERMAN] * 3 + ["2025-12-31 13:00:00"] * 7 + [""])
    run = checked(spark, tmp_path, section(log, "csv", "timestamp", header=True))
    counts = {"rows_in": 11, "bad_rows": 0, "bad_time": 3, "incomplete": 1}
    assert run.counts == counts
    assert "3 of 10 values could not be read as a time, such as '31.12.2025 13:00'" in caplog.text
    run = checked(spark, tmp_path, section(csv(tmp_path, [str(SECOND)] * 9 + ["-1"]), "csv", header=True))
    assert (run.counts["bad_time"], run.counts["incomplete"]) == (1, 0)
    assert "times lie in year 1,969 (1 of 10 values, such as '-1')" in caplog.text


@pytest.mark.parametrize("content", [b"", b"user,item,at\n"], ids=["no byte", "header alone"])
def test_a_log_without_a_row_is_called_empty(spark: SparkSession, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(JobError, match=r"interactions.source: .*log\.csv is empty"):
        checked(spark, tmp_path, section(tmp_path / "log.csv", "csv", header=True))


def test_a_quoted_line_break_is_no_new_row(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        f'user,item,clicked,review,at\nu1,i1,1,"great\nproduct, ""really""\nbuy it",{SECOND}\nu2,i2,1,"15\\" vase",7\n'
    )
    (tmp_path / "log.csv").write_text(text)
    settings = section(tmp_path / "log.csv", "csv", header=True)
    rows = read_events(spark, settings).collect()
    assert [(row.user_id, row.time, row.bad_row) for row in rows] == [("u1", MOMENT, False), (None, None, True)]
    assert checked(spark, tmp_path, settings).counts == {"rows_in": 2, "bad_rows": 1, "bad_time": 0, "incomplete": 0}
    assert 'Then set escape: "\\\\" in its options' in caplog.text
    faster = section(tmp_path / "log.csv", "csv", header=True, multiLine=False)
    assert read_events(spark, faster).count() == 4

"""A night costs what changed: what reaches Python, what is opened, what is committed, and what stays in quarantine."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lamps import Row, Seen, lamps, touch, versions
from pyspark.sql import SparkSession
from test_extract import catalogue, current, jpeg, reasons, run, stored

import pipeline.on_spark.extract as extracting
from pipeline.errors import GateRefused
from pipeline.lake.commit import RUN_TIME
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.prepare import Prepare
from pipeline.on_spark.texts import Template
from schemas.tables import ITEMS, QUARANTINE

pytestmark = pytest.mark.spark


@pytest.mark.slow
def test_faults_stay_over_idle_nights_and_leave_when_they_are_mended(
    spark: SparkSession, tmp_path: Path, seen: Seen
) -> None:
    folder = tmp_path / "faults"
    config = lamps(folder, 6)
    config = config.model_copy(update={"gates": config.gates.model_copy(update={"max_degraded_fraction": 1.0})})
    (folder / "0.jpg").unlink()
    for i in (1, 2):
        (folder / f"{i}.jpg").write_bytes(b"<html>404</html>")
    first = run(spark, config)
    faulty = {"0": "missing_image", "1": "image_decode", "2": "image_decode"}
    assert (first["degraded"], reasons(config)) == (3, faulty)
    committed, before = versions(config), stored(config, QUARANTINE)
    seen()
    for _ in range(2):
        counts = run(spark, config)
        assert (counts["degraded"], counts["skipped"], seen()) == (3, 6, [])
    assert versions(config) == committed

    strict = config.model_copy(update={"gates": config.gates.model_copy(update={"max_degraded_fraction": 0.4})})
    with pytest.raises(GateRefused, match="3 of 6 rows lost a modality"):
        run(spark, strict)

    jpeg(folder / "0.jpg")
    jpeg(folder / "1.jpg")
    touch(folder / "3.jpg")
    counts = run(spark, config)
    assert (counts["changed"], counts["refreshed"], counts["degraded"]) == (2, 1, 1)
    assert seen() == ["0", "1", "3"]
    assert stored(config, QUARANTINE).to_pylist() == [r for r in before.to_pylist() if r["item_id"] == "2"]
    (folder / "items.json").write_text("".join((folder / "items.json").read_text().splitlines(keepends=True)[3:]))
    gone = config.model_copy(update={"gates": config.gates.model_copy(update={"max_delete_fraction": 1.0})})
    assert run(spark, gone)["deleted"] == 3
    assert reasons(config) == {}


@pytest.mark.slow
def test_conflicting_rows_stand_in_quarantine_as_long_as_they_conflict(
    spark: SparkSession, tmp_path: Path, seen: Seen
) -> None:
    folder = tmp_path / "conflict"
    rows: list[Row] = [{"id": i, "title": f"lamp {i}", "image": None} for i in ("a", "b", "c")]
    run(spark, catalogue(folder, rows))
    seen()
    other: Row = {"id": "a", "title": "a chair", "image": "none.jpg"}
    config = catalogue(folder, [other, *rows, rows[1]])
    for night in range(2):
        counts = run(spark, config)
        assert (counts["skipped"], counts["quarantined"], counts["rows_out"]) == (4, 1, 0)
        assert seen() == ["a", "a"]  # equal rows, such as those of b, are as unchanged as one
        assert {row["reason"] for row in stored(config, QUARANTINE).to_pylist()} == {"duplicate_id", "missing_image"}
        assert current(config)["a"]["text"] == "lamp a"
        if night == 0:
            committed = versions(config)
    assert versions(config) == committed
    counts = run(spark, catalogue(folder, rows))
    assert (counts["skipped"], reasons(config), seen()) == (3, {}, ["a"])  # once more, since its faults went
    assert (run(spark, config)["skipped"], seen()) == (3, [])

    counts = run(spark, catalogue(folder, [{"id": "a", "title": None, "image": None}, *rows[1:]]))  # rejected
    assert (counts["quarantined"], counts["deleted"], reasons(config)) == (1, 0, {"a": "empty"})
    assert current(config)["a"]["text"] == "lamp a"
    assert (run(spark, catalogue(folder, rows))["skipped"], reasons(config)) == (3, {})

    undecodable: Row = {"id": "d", "title": "\ufffd\ufffd", "image": None}
    run(spark, catalogue(folder, [*rows, undecodable, {"id": "d", "title": "lamp d", "image": None}]))
    found = {(row["item_id"], row["reason"]) for row in stored(config, QUARANTINE).to_pylist()}
    assert found == {("d", "bad_text"), ("d", "duplicate_id")}
    counts = run(spark, catalogue(folder, [*rows, {"id": "d", "title": "lamp d", "image": None}]))
    assert (counts["skipped"], reasons(config)) == (4, {})


def test_rows_that_no_item_comes_of_are_not_looked_at_again(
    spark: SparkSession, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted then is what a look finds."""
    folder = tmp_path / "rejected"
    folder.mkdir()
    jpeg(folder / "a.jpg")
    rows: list[Row] = [
        {"id": "a", "title": "lamp", "image": "a.jpg"},
        {"id": "b", "title": "chair", "image": "b.jpg"},  # goes on without its picture
        {"id": "c", "title": None, "image": None},
        {"id": None, "title": "table", "image": None},
        {"id": None, "title": "table", "image": None},
        {"id": "d", "title": "\ufffd\ufffd", "image": None},
        {"id": "e", "title": "sofa", "image": None},
        {"id": "e", "title": "another sofa", "image": None},
    ]
    config = catalogue(folder, rows)
    config = config.model_copy(update={"gates": config.gates.model_copy(update={"max_degraded_fraction": 1.0})})
    run(spark, config)
    seen()
    committed, found = versions(config), reasons(config)
    idle = run(spark, config)
    assert (idle["rows_in"], idle["skipped"], idle["quarantined"], idle["degraded"]) == (8, 3, 5, 1)
    with monkeypatch.context() as patched:
        patched.delattr(extracting, "compare")  # nor are the items, once a night had nothing to do
        assert run(spark, config) == idle
    assert (seen(), versions(config), reasons(config)) == ([], committed, found)
    run(spark, config, verify_pictures=True)
    assert "a" in seen()
    monkeypatch.setattr(extracting, "unchanged_since", lambda *_, **__: None)
    assert run(spark, config) == idle
    assert ([str(item) for item in seen()], versions(config)) == (["None", "None", "c", "d", "e", "e"], committed)


@pytest.mark.slow
def test_a_row_that_tripped_us_is_looked_at_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tripped(Prepare):
        def _item(self, raw: Mapping[str, Any], template: Template | None) -> dict[str, Any]:
            if raw["item_id"] == "b":
                raise MemoryError
            return Prepare._item(self, raw, template)

    rows: list[Row] = [{"id": i, "title": f"lamp {i}", "image": None} for i in ("a", "b")]
    config = catalogue(tmp_path / "tripped", rows)
    with monkeypatch.context() as patch:
        patch.setattr(extracting, "Prepare", Tripped)
        run(spark, config)
    assert reasons(config) == {"b": "internal"}
    assert (run(spark, config)["new"], reasons(config)) == (1, {})


@pytest.mark.slow
def test_rejected_rows_become_items_once_they_are_mended(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "mended"
    rows: list[Row] = [{"id": "a", "title": "lamp", "image": None}, {"id": "b", "title": None, "image": None}]
    for _ in range(2):
        config = catalogue(folder, rows)
        run(spark, config)
    seen()
    rows[1] |= {"title": "shelf"}
    assert (run(spark, catalogue(folder, rows))["new"], reasons(config), seen()) == (1, {}, ["b"])
    rows[1] = {"id": "b", "title": "shelf", "image": "b.jpg"}
    rows.append({"id": "c", "title": None, "image": "c.jpg"})  # a picture may come, or be readable, another night
    for _ in range(3):
        counts = run(spark, catalogue(folder, rows))
    assert (counts["rows_out"], counts["quarantined"], seen()) == (0, 1, ["b", "c", "c", "c"])
    jpeg(folder / "c.jpg")
    assert run(spark, catalogue(folder, rows))["new"] == 1
    run(spark, config, verify_pictures=True)
    assert "c" in seen()


def test_what_a_night_that_failed_could_not_say_the_next_one_says(
    spark: SparkSession, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lamps(tmp_path / "failed")
    (tmp_path / "failed" / "1.jpg").write_bytes(b"<html>404</html>")

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(extracting, "update_quarantine", fail)
        with pytest.raises(OSError, match="disk"):
            run(spark, config)
    assert (len(current(config)), Lake(config.lake).exists(QUARANTINE), seen()) == (3, False, ["0", "1", "2"])
    version = Lake(config.lake).version(ITEMS)
    counts = run(spark, config)
    assert (counts["skipped"], counts["degraded"], seen()) == (3, 1, ["0", "1", "2"])
    assert (Lake(config.lake).version(ITEMS), reasons(config)) == (version, {"1": "image_decode"})
    assert (run(spark, config)["skipped"], seen()) == (3, [])


@pytest.mark.slow
def test_one_changed_row_is_the_work_of_one_task(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    rows: list[Row] = [{"id": str(i), "title": f"lamp {i}", "image": None} for i in range(300)]
    run(spark, catalogue(tmp_path / "tasks", rows))
    assert len(list((tmp_path / "seen").iterdir())) >= 2  # a batch a task at least
    seen()
    rows[7] |= {"title": "another"}
    run(spark, catalogue(tmp_path / "tasks", rows))
    assert len(list((tmp_path / "seen").iterdir())) == 1


def test_nights_after_one_whose_clock_was_ahead_win(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[Row] = [{"id": i, "title": f"lamp {i}", "image": None} for i in ("a", "b", "c", "d", "e")]
    config = catalogue(tmp_path / "clock", rows)
    ahead = datetime.now(UTC) + timedelta(days=365)
    with Run("extract", config, run_id=f"{ahead:{RUN_TIME}}-abcd") as record:
        extracting.extract(spark, record)
    rows[0] |= {"title": "a chair"}
    assert run(spark, catalogue(tmp_path / "clock", rows))["changed"] == 1
    assert run(spark, catalogue(tmp_path / "clock", rows[:-1]))["deleted"] == 1
    assert {item: row["text"] for item, row in current(config).items()} == {
        "a": "a chair",
        "b": "lamp b",
        "c": "lamp c",
        "d": "lamp d",
    }
    assert run(spark, catalogue(tmp_path / "clock", rows[:-1]))["skipped"] == 4


def test_a_source_that_changes_while_it_is_read_stops_the_night(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = [{"id": str(i), "title": f"lamp {i}", "image": None} for i in range(4)]
    config = catalogue(tmp_path / "moving", rows)
    counted = extracting.totals

    def meanwhile(compared: Any) -> Any:
        found = counted(compared)
        text = (tmp_path / "moving" / "items.json").read_text()
        (tmp_path / "moving" / "items.json").write_text(text.replace("lamp 3", "LAMP 3"))
        return found

    monkeypatch.setattr(extracting, "totals", meanwhile)
    with pytest.raises(Exception, match=r"catalog.source: .*items.json changed while it was read: run extract again"):
        run(spark, config)
    assert not Lake(config.lake).exists(ITEMS)

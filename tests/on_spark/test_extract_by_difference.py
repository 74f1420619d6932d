"""A night costs what changed: what reaches Python, what is opened, what is committed, and what stays in quarantine."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from test_extract import catalogue, content, current, jpeg, reasons, run, stored

import pipeline.on_spark.extract as extracting
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.errors import ConfigError, GateRefused
from pipeline.lake.commit import RUN_TIME
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.object_store import reach_store
from pipeline.on_spark.prepare import Prepare
from schemas.tables import ITEMS, QUARANTINE

pytestmark = pytest.mark.spark

Row = dict[str, object]
Seen = Callable[[], list[str | None]]


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


def versions(config: Config) -> list[int | None]:
    return [Lake(config.lake).version(table) for table in (ITEMS, QUARANTINE)]


def swap(file: Path, colour: str) -> None:
    """Another picture of the same size and time."""
    before = file.stat()
    data = jpeg(file, colour)
    assert len(data) <= before.st_size
    file.write_bytes(data.ljust(before.st_size, b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(file: Path, seconds: int = 5) -> None:
    time = file.stat().st_mtime_ns + seconds * 10**9
    os.utime(file, ns=(time, time))


def lamps(folder: Path, count: int = 3, **settings: object) -> Config:
    """Items 0, 1, … with a picture each."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        jpeg(folder / f"{i}.jpg", ("red", "green", "blue")[i % 3])
        (folder / f"{i}.jpg").write_bytes((folder / f"{i}.jpg").read_bytes().ljust(2000, b"\0"))
    return catalogue(
        folder, [{"id": str(i), "title": f"lamp {i}", "image": f"{i}.jpg"} for i in range(count)], **settings
    )


def test_by_stat_pictures_of_unchanged_rows_are_not_opened(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "stat"
    config = lamps(folder)
    assert run(spark, config)["new"] == 3
    assert seen() == ["0", "1", "2"]
    committed, items = versions(config), current(config)

    swap(folder / "0.jpg", "yellow")  # nothing shows it but its bytes
    counts = run(spark, config)
    assert (counts["rows_in"], counts["skipped"], counts["rows_out"], seen()) == (3, 3, 0, [])
    assert versions(config) == committed

    counts = run(spark, config, verify_pictures=True)
    assert (counts["changed"], counts["skipped"], seen()) == (1, 2, ["0", "1", "2"])
    assert content(current(config)["0"]) != content(items["0"])

    touch(folder / "1.jpg")
    counts = run(spark, config)
    assert (counts["refreshed"], counts["changed"], counts["rows_out"], seen()) == (1, 0, 1, ["1"])
    refreshed = current(config)["1"]
    assert content(refreshed) == content(items["1"])
    assert (refreshed["text"], refreshed["image"]) == (items["1"]["text"], items["1"]["image"])
    assert (run(spark, config)["skipped"], seen()) == (3, [])

    larger = config.model_copy(update={"catalog": config.catalog.model_copy(update={"max_text_chars": 3})})
    assert (run(spark, larger)["changed"], seen()) == (3, ["0", "1", "2"])


@pytest.mark.slow
def test_another_size_prepares_every_picture_anew(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    config = lamps(tmp_path / "size")
    run(spark, config)
    smaller = load_config(tmp_path / "size" / "hisam.yaml", ["catalog.image.size=16"])
    seen()
    counts = run(spark, smaller)
    assert (counts["changed"], seen()) == (3, ["0", "1", "2"])
    assert (run(spark, smaller)["skipped"], seen()) == (3, [])


@pytest.mark.slow
def test_by_bytes_every_picture_is_compared(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "bytes"
    config = lamps(folder, image={"column": "image", "root": ".", "changed": "bytes"})
    run(spark, config)
    assert all(str(row["picture_stat"]).startswith("sha256:") for row in current(config).values())
    committed = versions(config)
    seen()
    touch(folder / "1.jpg")
    assert (run(spark, config)["skipped"], seen()) == (3, ["0", "1", "2"])
    assert versions(config) == committed
    swap(folder / "0.jpg", "yellow")
    assert run(spark, config)["changed"] == 1


@pytest.mark.slow
def test_a_column_of_the_source_says_that_a_picture_changed(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "column"
    by_column = {"column": "image", "root": ".", "changed": "etag"}
    rows: list[Row] = [{"id": str(i), "title": "A lamp", "image": f"{i}.jpg", "etag": i} for i in range(3)]
    rows += [{"id": "bare", "title": "A lamp", "image": None, "etag": 7}]
    lamps(folder)
    config = catalogue(folder, rows, image=by_column)
    run(spark, config)
    assert [current(config)[i]["picture_stat"] for i in ("0", "1", "bare")] == ["0", "1", "7"]
    seen()
    touch(folder / "0.jpg")
    (folder / "2.jpg").unlink()  # nobody looks
    assert (run(spark, config)["skipped"], seen()) == (4, [])
    jpeg(folder / "2.jpg", "white")
    rows[2] |= {"etag": 9}
    counts = run(spark, catalogue(folder, rows, image=by_column))
    assert (counts["changed"], seen()) == (1, ["2"])
    rows[1] |= {"etag": None}  # says nothing, so the picture is looked at
    counts = run(spark, catalogue(folder, rows, image=by_column))
    assert (counts["refreshed"], seen()) == (1, ["1"])
    counts = run(spark, catalogue(folder, rows, image=by_column))
    assert (counts["skipped"], seen()) == (4, ["1"])
    with pytest.raises(ConfigError, match=r"catalog\.image\.changed: there is no column 'version'"):
        run(spark, catalogue(folder, rows, image=by_column | {"changed": "version"}))


@pytest.mark.slow
@pytest.mark.parametrize("by_column", [False, True])
def test_pictures_in_the_source_itself(spark: SparkSession, tmp_path: Path, seen: Seen, by_column: bool) -> None:
    folder = tmp_path / "binary"
    image = {"column": "image"} | ({"changed": "etag"} if by_column else {})
    config = catalogue(folder, [], source={"path": "items.parquet", "format": "parquet"}, image=image)
    rows = [{"id": c, "title": "A lamp", "image": jpeg(tmp_path / "a.jpg", c), "etag": 1} for c in ("red", "blue")]

    def night() -> dict[str, int]:
        pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
        return run(spark, config)

    assert night()["new"] == 2
    assert {row["picture_stat"] for row in current(config).values()} == {"1" if by_column else None}
    assert seen() == ["blue", "red"]
    assert (night()["skipped"], seen()) == (2, [])
    rows[0]["image"] = jpeg(tmp_path / "a.jpg", "white")
    assert (night()["changed"], seen()) == ((0, []) if by_column else (1, ["red"]))
    rows[1] |= {"image": jpeg(tmp_path / "a.jpg", "black"), "etag": 2}
    assert (night()["changed"], seen()) == (1, ["blue"])


@pytest.mark.slow
def test_pictures_that_only_hadoop_reaches(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    mount = Path(spark.conf.get("spark.hisam.mount")) / "by difference"
    mount.mkdir()
    names = ["a [b] {c}*.jpg", "b.jpg", "c.jpg"]
    for name, colour in zip(names, ("red", "green", "blue"), strict=True):
        jpeg(mount / name, colour)
    rows: list[Row] = [{"id": str(i), "title": "A lamp", "image": name} for i, name in enumerate(names)]
    rows.append({"id": "lost", "title": "A lamp", "image": "none.jpg"})
    image = {"column": "image", "root": "viewfs://store/pictures/by difference"}
    config = catalogue(tmp_path / "hadoop", rows, image=image)
    assert run(spark, config)["new"] == 4
    assert [current(config)[str(i)]["image"] is not None for i in range(3)] == [True] * 3
    assert seen() == ["0", "1", "2", "lost"]
    (mount / "b.jpg").chmod(0)
    assert (run(spark, config)["skipped"], seen()) == (4, [])
    assert reasons(config) == {"lost": "missing_image"}
    jpeg(mount / "c.jpg", "white")
    jpeg(mount / "none.jpg", "white")
    touch(mount / "c.jpg")
    counts = run(spark, config)  # the two alone are read
    assert (counts["changed"], seen()) == (2, ["2", "lost"])
    assert reasons(config) == {}
    assert (run(spark, config)["skipped"], seen()) == (4, [])


def test_a_root_without_authority_and_references_of_every_spelling(spark: SparkSession, tmp_path: Path) -> None:
    """A file system that has a root of its own, as HDFS and mount tables have."""
    mount = Path(spark.conf.get("spark.hisam.mount")) / "spelt"
    mount.mkdir()
    for name in ("a.jpg", "b c.jpg", "unnamed.jpg"):
        jpeg(mount / name)
    (mount / "big.jpg").write_bytes(bytes(60_000))
    (mount / "unnamed.jpg").chmod(0)
    good = [
        "a.jpg",
        "b c.jpg",
        "viewfs:///pictures/spelt/a.jpg",
        "viewfs:/pictures/spelt/b c.jpg",
        "/pictures/spelt/a.jpg",
    ]
    bad = {
        "big.jpg": "image_too_large",
        "none.jpg": "missing_image",
        "sub\\a.jpg": "missing_image",
        "../spelt/a.jpg": "image_not_allowed",
        "/pictures/a.jpg": "image_not_allowed",
        "viewfs://store/pictures/spelt/a.jpg": "image_not_allowed",
    }
    rows: list[Row] = [{"id": name, "title": "A lamp", "image": name} for name in [*good, *bad]]
    image = {"column": "image", "root": "viewfs:///pictures/spelt", "max_bytes": 50_000}
    catalogue(tmp_path / "spelt", rows, image=image)
    config = load_config(tmp_path / "spelt" / "hisam.yaml", ["gates.max_degraded_fraction=1"])
    run(spark, config)
    assert reasons(config) == bad
    assert {item for item, row in current(config).items() if row["image"]} == set(good)
    details = {row["item_id"]: row["detail"] for row in stored(config, QUARANTINE).to_pylist()}
    assert "write / between folders" in details["sub\\a.jpg"]
    with pytest.raises(ConfigError, match=r"catalog\.image\.root: nofs://host/pictures cannot be reached"):
        run(spark, catalogue(tmp_path / "spelt", rows, image=image | {"root": "nofs://host/pictures"}))


@pytest.mark.slow
@pytest.mark.spark_on_s3
def test_pictures_in_a_bucket_by_either_scheme(spark: SparkSession, tmp_path: Path, s3: dict[str, str]) -> None:
    lake = Lake.create(f"s3://lakes/{uuid.uuid4().hex}", s3)
    reach_store(spark, lake)
    folder = lake.uri.removeprefix("s3://")
    jpeg(tmp_path / "a.jpg")
    for name, data in {"a.jpg": (tmp_path / "a.jpg").read_bytes(), "big.jpg": bytes(60_000)}.items():
        with lake.filesystem.open_output_stream(lake.path(f"pictures/{name}")) as stream:
            stream.write(data)
    good = ["a.jpg", f"s3://{folder}/pictures/a.jpg", f"s3a://{folder}/pictures/a.jpg"]
    bad = {"big.jpg": "image_too_large", f"s3://{folder}/a.jpg": "image_not_allowed"}
    rows: list[Row] = [{"id": name, "title": "A lamp", "image": name} for name in [*good, *bad]]
    image = {"column": "image", "root": f"s3://{folder}/pictures", "max_bytes": 50_000}
    config = catalogue(tmp_path / "bucket", rows, image=image)
    run(spark, config)
    assert reasons(config) == bad
    assert {item for item, row in current(config).items() if row["image"]} == set(good)


@pytest.mark.slow
def test_references_of_every_spelling_are_found_in_the_listing(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "spelt"
    (folder / "root" / "s u b").mkdir(parents=True)
    jpeg(folder / "outside.jpg")
    for name in ("a+b %.jpg", "s u b/ä.jpg"):
        jpeg(folder / "root" / name)
    (folder / "root" / "in.jpg").symlink_to("s u b/ä.jpg")
    (folder / "root" / "out.jpg").symlink_to(folder / "outside.jpg")
    (folder / "root" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    root = folder / "root"
    good = [
        "a+b %.jpg",
        "./s u b/../s u b/ä.jpg",
        f"{root}/in.jpg",
        f"file://{root}/a+b%20%25.jpg",
        "FILE:s%20u%20b/ä.jpg",
    ]
    bad = ["out.jpg", "../outside.jpg", "no/such/folder.jpg", "http://host/a.jpg", "s u b"]
    rows: list[Row] = [{"id": name, "title": "A lamp", "image": name} for name in good + bad]
    config = catalogue(folder, rows, image={"column": "image", "root": "root"})
    run(spark, config)
    assert {item for item, row in current(config).items() if row["image"]} == set(good)
    assert reasons(config).keys() == set(bad)
    assert len(seen()) == 10
    assert (run(spark, config)["skipped"], seen()) == (10, [])
    touch(root / "s u b" / "ä.jpg")
    assert (run(spark, config)["refreshed"], seen()) == (3, sorted([good[1], good[2], good[4]]))
    for odd in ("file:in.jpg", f"file://{root}/in.jpg?x"):  # files that their spelling alone does not tell
        config = catalogue(
            folder, [{"id": odd, "title": "A lamp", "image": odd}], image={"column": "image", "root": "root"}
        )
        config = config.model_copy(update={"lake": str(tmp_path / odd.replace("/", "-").replace("?", "-"))})
        assert run(spark, config)["new"] == 1
        assert current(config)[odd]["image"] is not None
        assert (run(spark, config)["skipped"], seen()) == (1, [odd, odd])


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

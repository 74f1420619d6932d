"""What says that a picture is the same, wherever it lies, and which pictures a night opens."""

import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lamps import Row, Seen, lamps, swap, touch, versions
from pyspark.sql import SparkSession
from test_extract import catalogue, content, current, jpeg, reasons, run, stored

from pipeline.config.file import load_config
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake
from pipeline.on_spark.object_store import reach_store
from schemas.tables import QUARANTINE

pytestmark = pytest.mark.spark


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
    reach_store(spark, lake.uri, s3)
    folder = lake.uri.removeprefix("s3://")
    jpeg(tmp_path / "a.jpg")
    for name, data in {"a.jpg": (tmp_path / "a.jpg").read_bytes(), "big.jpg": bytes(60_000)}.items():
        with lake.filesystem.open_output_stream(lake.path(f"pictures/{name}")) as stream:
            stream.write(data)
    good = ["a.jpg", f"s3://{folder}/pictures/a.jpg", f"s3a://{folder}/pictures/a.jpg"]
    bad = {"big.jpg": "image_too_large", f"s3://{folder}/a.jpg": "image_not_allowed"}
    rows: list[Row] = [{"id": name, "title": "A lamp", "image": name} for name in [*good, *bad]]
    image = {"column": "image", "root": f"s3://{folder}/pictures", "max_bytes": 50_000}
    config = catalogue(tmp_path / "bucket", rows, image=image).model_copy(update={"storage_options": s3})
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

"""Extraction on real Spark: what comes in, what goes out, what is quarantined, and what a second night does."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.errors import ConfigError, GateRefused
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.extract import extract
from schemas.tables import ITEMS, QUARANTINE

pytestmark = pytest.mark.spark

TOMBSTONE = {"item_id", "run_id", "deleted", "extracted_at"}


def run(spark: SparkSession, config: Config, **arguments: bool) -> dict[str, int]:
    with Run("extract", config) as record:
        extract(spark, record, **arguments)
    counts = record.counts
    assert counts["rows_in"] == counts["rows_out"] + counts["skipped"] + counts["quarantined"]
    return counts


def stored(config: Config, table: Any = ITEMS) -> pa.Table:
    return table.conform(Lake(config.lake).read(table, table.schema.names))


def current(config: Config) -> dict[str, dict[str, Any]]:
    """The current items by id, without Spark."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(stored(config).to_pylist(), key=lambda row: row["run_id"]):
        newest[row["item_id"]] = row
    return {item: row for item, row in newest.items() if not row["deleted"]}


def content(row: dict[str, Any]) -> tuple[str | None, str | None]:
    return row["text_sha"], row["image_sha"]


def reasons(config: Config) -> dict[str, str]:
    return {row["item_id"]: row["reason"] for row in stored(config, QUARANTINE).to_pylist()}


def catalogue(folder: Path, rows: list[dict[str, object]], **settings: object) -> Config:
    """A configuration over rows of ``id``, ``title`` and ``image``, written as JSON lines."""
    folder.mkdir(exist_ok=True)
    (folder / "items.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {
        "source": {"path": "items.json", "format": "json"},
        "id": "id",
        "text": "{title}",
        "image": {"column": "image", "root": "."},
    } | settings
    (folder / "hisam.yaml").write_text(json.dumps({"lake": "lake", "catalog": section}))
    return load_config(folder / "hisam.yaml")


def jpeg(path: Path, colour: str = "red") -> bytes:
    Image.new("RGB", (40, 30), colour).save(path, "JPEG")
    return path.read_bytes()


@pytest.mark.slow
def test_two_nights_of_a_generated_catalogue(spark: SparkSession, shop: Path, shop_config: Config) -> None:
    first = run(spark, shop_config)
    assert (first["rows_in"], first["new"], first["quarantined"]) == (120, 119, 1)
    rows = stored(shop_config)
    assert rows.num_rows == 119
    assert sorted(reasons(shop_config).values()) == ["empty", "image_decode", "image_decode", "missing_image"]
    for data in rows["image"].drop_null().to_pylist():
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert max(image.size) <= 256

    versions = [Lake(shop_config.lake).version(table) for table in (ITEMS, QUARANTINE)]
    again = run(spark, shop_config)
    assert (again["rows_out"], again["skipped"], again["deleted"]) == (0, 119, 0)
    assert [Lake(shop_config.lake).version(table) for table in (ITEMS, QUARANTINE)] == versions

    changes = mutate(shop, 0.1, seed=1)
    third = run(spark, shop_config)
    edited = len(changes["text_edited"]) + len(changes["image_edited"])
    assert (third["new"], third["changed"], third["deleted"]) == (len(changes["new"]), edited, len(changes["deleted"]))
    live = current(shop_config)
    assert not set(changes["deleted"]) & live.keys()
    assert live.keys() >= set(changes["new"])
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in stored_versions(shop_config):
        by_id.setdefault(row["item_id"], []).append(row)
    for item in changes["text_edited"]:
        before, after = by_id[item]
        assert before["image_sha"] == after["image_sha"]
        assert before["text_sha"] != after["text_sha"]
    for item in changes["image_edited"]:
        before, after = by_id[item]
        assert before["text_sha"] == after["text_sha"]
        assert before["image_sha"] != after["image_sha"]


def stored_versions(config: Config) -> list[dict[str, Any]]:
    rows = Lake(config.lake).read(ITEMS, ITEMS.schema.names)
    return rows.sort_by([("item_id", "ascending"), ("run_id", "ascending")]).to_pylist()


def test_every_bad_row_has_its_reason_and_the_good_ones_go_on(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    rows: list[dict[str, object]] = [
        {"id": "good", "title": "A lamp", "image": "good.jpg"},
        {"id": "no-picture", "title": "A lamp", "image": None},
        {"id": "no-text", "title": None, "image": "good.jpg"},
        {"id": "nothing", "title": "  ", "image": ""},
        {"id": None, "title": "A lamp", "image": None},
        {"id": " ", "title": "A lamp", "image": None},
        {"id": "x" * 4000, "title": "A lamp", "image": None},
        {"id": "lost", "title": "A lamp", "image": "none.jpg"},
        {"id": "html", "title": None, "image": "page.jpg"},
        {"id": "climber", "title": "A lamp", "image": "../../secret.jpg"},
        {"id": "web", "title": "A lamp", "image": "https://example.org/a.jpg"},
        {"id": "no-uri", "title": "A lamp <![foo[ bar", "image": "https://[bad/a.jpg"},
        {"id": "big", "title": "A lamp", "image": "big.jpg"},
        {"id": "mojibake", "title": "\ufffd\ufffd\ufffd lamp", "image": "good.jpg"},
        {"id": "twice", "title": "A lamp", "image": None},
        {"id": "twice", "title": "A lamp", "image": None},
        {"id": "torn", "title": "A lamp", "image": None},
        {"id": "torn", "title": "A chair", "image": None},
    ]
    config = catalogue(folder, rows, image={"column": "image", "root": ".", "max_bytes": 5000})
    jpeg(folder / "good.jpg")
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "big.jpg").write_bytes(b"x" * 5001)
    counts = run(spark, config)
    assert reasons(config) == {
        "nothing": "empty",
        "": "null_id",
        "x" * 1024 + "…": "bad_id",
        "lost": "missing_image",
        "html": "image_decode",
        "climber": "image_not_allowed",
        "web": "image_not_allowed",
        "no-uri": "image_not_allowed",
        "big": "image_too_large",
        "mojibake": "bad_text",
        "torn": "duplicate_id",
    }
    live = stored(config)["item_id"].to_pylist()
    assert sorted(live) == sorted(
        ["good", "no-picture", "no-text", "lost", "climber", "web", "no-uri", "big", "mojibake", "twice", "torn"]
    )
    # quarantined: nothing, two null ids, bad id, html, the other torn row; skipped: the repeated row
    assert (counts["quarantined"], counts["skipped"], counts["degraded"]) == (6, 1, 6)
    details = {row["item_id"]: row["detail"] for row in stored(config, QUARANTINE).to_pylist()}
    assert "(2 rows)" in details[""]
    assert "page" not in details["nothing"]

    (folder / "none.jpg").write_bytes((folder / "good.jpg").read_bytes())
    fixed = run(spark, config)
    assert fixed["changed"] == 1
    assert "lost" not in reasons(config)
    assert "climber" in reasons(config)


def test_duplicates_resolve_the_same_way_in_any_order(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": "a", "title": title, "image": None} for title in ("one", "two", "three")]
    taken = set()
    for name, order in (("x", rows), ("y", rows[::-1])):
        config = catalogue(tmp_path / name, order)
        run(spark, config)
        taken.add(content(current(config)["a"]))
    assert len(taken) == 1


def test_an_upsert_source_deletes_nothing_and_keeps_others_quarantine(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "upsert"
    catalogue(folder, [{"id": "a", "title": "A", "image": None}, {"id": "b", "title": None, "image": "no.jpg"}])
    first = load_config(folder / "hisam.yaml", ["catalog.full_snapshot=false"])
    run(spark, first)
    catalogue(folder, [{"id": "c", "title": "C", "image": None}])
    counts = run(spark, load_config(folder / "hisam.yaml", ["catalog.full_snapshot=false"]))
    assert counts["deleted"] == 0
    assert sorted(current(first)) == ["a", "c"]
    assert reasons(first) == {"b": "missing_image"}


def test_items_leave_come_back_and_change_back(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "back"
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"item {i}", "image": None} for i in range(10)]
    run(spark, catalogue(folder, rows))
    assert run(spark, catalogue(folder, rows[1:]))["deleted"] == 1
    assert run(spark, catalogue(folder, rows))["new"] == 1
    edited = [rows[0] | {"title": "edited"}, *rows[1:]]
    assert run(spark, catalogue(folder, edited))["changed"] == 1
    config = catalogue(folder, rows)
    assert run(spark, config)["changed"] == 1
    history = [row for row in stored_versions(config) if row["item_id"] == "0"]
    assert [row["deleted"] for row in history] == [False, True, False, False, False]
    assert {name for name, value in history[1].items() if value is not None} == TOMBSTONE
    assert content(history[0]) == content(history[4])
    assert len(current(config)) == 10


def test_a_truncated_source_does_not_wipe_the_catalogue(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"item {i}", "image": None} for i in range(10)]
    config = catalogue(tmp_path / "cut", rows)
    run(spark, config)
    config = catalogue(tmp_path / "cut", rows[:5])
    with pytest.raises(GateRefused, match=r"5 of 10 live items are absent .*max_delete_fraction = 0.2"):
        run(spark, config)
    assert len(current(config)) == 10
    allowed = load_config(tmp_path / "cut" / "hisam.yaml", ["gates.max_delete_fraction=1"])
    assert run(spark, allowed)["deleted"] == 5


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"text": "{name}"}, r"catalog.text \{name\}: there is no column 'name'; the source has id, image, title"),
        ({"id": "key"}, "catalog.id: there is no column 'key'"),
        ({"text": "{title"}, "catalog.text: "),
        ({"text": "title"}, "catalog.text: 'title' names no column"),
        ({"image": {"column": "image", "root": "nowhere"}}, "catalog.image.root: there is no folder .*nowhere"),
        ({"image": {"column": "image"}}, "catalog.image.root: column 'image' holds paths"),
        ({"source": {"path": "none.csv", "format": "csv"}}, r"catalog.source.path: .*none.csv cannot be read as csv"),
        ({"source": {"path": "items.json", "format": "json"}, "text": None, "image": None}, "catalog: text, image or"),
    ],
)
def test_a_configuration_that_the_source_does_not_fit_is_refused(
    spark: SparkSession, tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    config = catalogue(tmp_path / "wrong", [{"id": "1", "title": "A", "image": "a.jpg"}], **settings)
    with pytest.raises(ConfigError, match=fault):
        run(spark, config)
    records = [json.loads(file.read_text()) for file in Path(config.lake).glob("runs/*/extract.json")]
    assert [record["status"] for record in records] == ["failed"]
    assert records[0]["error"]


def test_a_root_without_its_pictures_stops_the_night(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"item {i}", "image": f"{i}.jpg"} for i in range(4)]
    config = catalogue(tmp_path / "gone", rows)
    for i in range(4):
        jpeg(tmp_path / "gone" / f"{i}.jpg")
    run(spark, config)
    for i in range(3):
        (tmp_path / "gone" / f"{i}.jpg").unlink()
    with pytest.raises(GateRefused, match="3 of 4 rows lost a modality"):
        run(spark, config)
    (tmp_path / "gone" / "items.json").write_text(
        "".join(json.dumps(row | {"title": "\ufffd" * 9, "image": "3.jpg"}) + "\n" for row in rows)
    )
    with pytest.raises(GateRefused, match=r"4 of 4 .*found now, 4 are bad_text: .*Write the source in UTF-8[^?]*$"):
        run(spark, config)
    assert stored(config)["image"].null_count == 0


def test_the_generator_and_the_extraction_agree_on_flaws(spark: SparkSession, tmp_path: Path) -> None:
    generate(tmp_path / "shop", items=150, users=2, seed=3)
    config = load_config(tmp_path / "shop" / "config.yaml")
    run(spark, config)
    rows = stored(config).to_pylist()
    lines = (tmp_path / "shop" / "factors.csv").read_text().splitlines()[1:]
    flaw = {line.split(",")[0]: line.split(",")[4] for line in lines}
    without_image = {row["item_id"] for row in rows if row["image"] is None}
    assert without_image == {i for i, f in flaw.items() if f in ("no_image", "corrupt_image", "missing_file")}


@pytest.mark.slow
@pytest.mark.native_delta
def test_nights_on_native_delta(spark: SparkSession, shop: Path) -> None:
    config = load_config(shop / "config.yaml", ["spark.delta=native"])
    assert run(spark, config)["rows_out"] == 119
    version = Lake(config.lake).version(ITEMS)
    assert run(spark, config)["rows_out"] == 0
    assert Lake(config.lake).version(ITEMS) == version
    changes = mutate(shop, 0.1, seed=1)
    counts = run(spark, config)
    assert counts["new"] == len(changes["new"])
    assert counts["deleted"] == len(changes["deleted"])
    assert len(current(config)) == 119

"""Nights of a catalogue whose pictures are URLs, on a real server: what is asked, kept, lost and told."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lamps import Row, Seen, versions
from picture_server import picture_server, png
from pyspark.sql import SparkSession
from test_extract import catalogue, current, jpeg, reasons, run, stored

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.errors import ConfigError, GateRefused
from pipeline.lake.run import Run
from pipeline.on_spark.extract import extract
from schemas.tables import QUARANTINE

pytestmark = pytest.mark.spark


def fetching(
    folder: Path, rows: list[Row], hosts: list[str], fetch: dict[str, Any] | None = None, **image: Any
) -> Config:
    """A configuration whose pictures are fetched from ``hosts``; a server that is down costs little time."""
    limits = {"hosts": hosts, "retries": 0, "recheck_days": 7} | (fetch or {})
    catalogue(folder, rows, image={"column": "image", "fetch": limits} | image)
    return load_config(folder / "hisam.yaml", ["gates={max_degraded_fraction: 0.6, max_delete_fraction: 1}"])


def later(spark: SparkSession, config: Config, days: int) -> dict[str, int]:
    with Run("extract", config) as record:
        record.started += timedelta(days=days)
        extract(spark, record)
    return record.counts


def test_nights_of_pictures_by_url(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    jpeg(folder / "local.jpg")
    with picture_server() as server:
        rows: list[Row] = [{"id": str(i), "title": f"lamp {i}", "image": server.url(f"/ok/{i}.png")} for i in range(4)]
        rows += [
            {"id": "gone", "title": "lamp", "image": server.url("/404/a.png")},
            {"id": "broken", "title": "lamp", "image": server.url("/503/a.png")},
            {"id": "elsewhere", "title": "lamp", "image": "https://example.org/a.png"},
            {"id": "local", "title": "lamp", "image": "local.jpg"},
            {"id": "bare", "title": "lamp", "image": None},
        ]
        config = fetching(folder, rows, [server.host], root=".")
        first = run(spark, config)
        assert (first["new"], first["degraded"], first["fetch_failed"]) == (9, 3, 1)
        faults = {"gone": "missing_image", "broken": "fetch_failed", "elsewhere": "image_not_allowed"}
        assert reasons(config) == faults
        assert {i for i, row in current(config).items() if row["image"]} == {"0", "1", "2", "3", "local"}
        assert server.statuses() == [200] * 4 + [404, 503]
        assert len(seen()) == 9
        committed = versions(config)

        again = run(spark, config)  # nothing but what has to be tried again reaches Python
        assert (again["skipped"], again["degraded"], seen()) == (9, 3, ["broken", "elsewhere"])
        assert (server.statuses(), versions(config)) == ([503], committed)

        counts = later(spark, config, 7)  # each URL has had its day, and no picture is sent again
        assert (counts["skipped"], counts["rows_out"], counts["degraded"]) == (9, 0, 3)
        assert (server.statuses(), len(seen())) == ([304] * 4 + [404, 503], 7)
        assert versions(config) == committed

        run(spark, config)  # to which the clock of the night before was ahead
        assert server.statuses() == [304] * 4 + [404, 503]
        seen()
        run(spark, config)
        assert server.statuses() == [503]


@pytest.mark.slow
def test_a_url_is_asked_again_after_nights_without_work(spark: SparkSession, tmp_path: Path, seen: Seen) -> None:
    folder = tmp_path / "web"
    with picture_server() as server:
        rows: list[Row] = [{"id": "a", "title": "lamp", "image": server.url("/ok/a.png")}]
        config = fetching(folder, rows, [server.host])
        for _ in range(3):
            run(spark, config)
        assert (server.statuses(), seen()) == ([200], ["a"])
        assert later(spark, config, 7)["skipped"] == 1
        assert (server.statuses(), seen()) == ([304], ["a"])


@pytest.mark.slow
def test_a_server_that_is_down_takes_no_picture(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "outage"
    with picture_server() as server:

        def night(**down: Any) -> tuple[Config, dict[str, int]]:
            server.down = "down" in down
            config = fetching(folder, rows, [server.host], {"recheck_days": 0})
            server.statuses()
            return config, run(spark, config)

        rows: list[Row] = [{"id": str(i), "title": f"lamp {i}", "image": server.url(f"/ok/{i}.png")} for i in range(4)]
        rows += [
            {"id": "gone", "title": "lamp", "image": server.url("/404/a.png")},
            {"id": "broken", "title": "lamp", "image": server.url("/503/a.png")},
        ]
        config, counts = night()
        assert (counts["new"], counts["degraded"], counts["fetch_failed"]) == (6, 2, 1)
        faults = {"gone": "missing_image", "broken": "fetch_failed"}
        assert reasons(config) == faults
        before = current(config)

        rows[0] |= {"title": "a chair"}
        server.pictures["/ok/1.png"] = png("another")
        config, counts = night()
        assert (counts["changed"], counts["skipped"], server.statuses()) == (2, 4, [200, 304, 304, 304, 404, 503])
        after = current(config)
        assert (after["0"]["text"], after["0"]["image"]) == ("a chair", before["0"]["image"])
        assert after["1"]["image"] != before["1"]["image"]

        rows[2] |= {"title": "a table"}
        rows[3] |= {"image": server.url("/ok/moved.png")}
        config, counts = night(down=True)
        assert (counts["changed"], counts["refreshed"], counts["degraded"], counts["fetch_failed"]) == (1, 0, 2, 6)
        kept = current(config)
        assert [kept[i]["image"] for i in "0123"] == [after[i]["image"] for i in "0123"]
        assert (kept["2"]["text"], set(reasons(config).values())) == ("a table", {"fetch_failed"})

        config, counts = night()
        assert (counts["changed"], counts["degraded"], server.statuses()) == (1, 2, [200, 304, 304, 304, 404, 503])
        assert current(config)["3"]["image"] != kept["3"]["image"]
        assert reasons(config) == faults
        assert run(spark, config, verify_pictures=True)["rows_out"] == 0
        assert server.statuses() == [200] * 4 + [404, 503]


@pytest.mark.slow
def test_a_first_night_without_the_server_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with picture_server() as server:
        server.down = True
        rows: list[Row] = [{"id": str(i), "title": "lamp", "image": server.url(f"/ok/{i}.png")} for i in range(4)]
        config = fetching(tmp_path / "down", rows, [server.host])
        with pytest.raises(
            GateRefused, match=r"4 of 4 rows lost a modality .* Do the hosts of catalog.image.fetch answer"
        ):
            run(spark, config)


def test_references_may_be_fields_of_a_column(spark: SparkSession, tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg", "blue")
    rows: list[Row] = [{"id": "one", "title": "lamp", "image": {"paths": ["none.jpg"], "path": "a.jpg"}}]
    for column, reason in (("image.path", {}), ("image.paths", {"one": "missing_image"})):
        config = catalogue(tmp_path, rows, image={"column": column, "root": "."})
        run(spark, load_config(tmp_path / "hisam.yaml", ["gates.max_degraded_fraction=1", f"lake={column}"]))
        assert reasons(config.model_copy(update={"lake": str(tmp_path / column)})) == reason


def test_urls_that_are_not_fetched_and_lists_are_told(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    jpeg(folder / "a.jpg", "blue")
    rows: list[Row] = [
        {"id": "first", "title": "lamp", "image": [" ", None, "a.jpg", "none.jpg"]},
        {"id": "web first", "title": "lamp", "image": ["https://example.org/a.jpg", "a.jpg"]},
        {"id": "web", "title": "lamp", "image": ["https://example.org/a.jpg"]},
        {"id": "backslash", "title": "lamp", "image": ["images\\a.jpg"]},
        {"id": "query", "title": "lamp", "image": ["a.jpg?v=3"]},
        {"id": "none", "title": "lamp", "image": []},
    ]
    config = catalogue(folder, rows)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        run(spark, config)
    said = "1 of 6 rows have a URL in column 'image', and URLs are not fetched: name their hosts under "
    assert said + "catalog.image.fetch.hosts" in caplog.text
    assert {i for i, row in current(config).items() if row["image"]} == {"first", "web first"}
    details = {row["item_id"]: row["detail"] for row in stored(config, QUARANTINE).to_pylist()}
    assert details["web"].endswith("URLs are not fetched: name the host under catalog.image.fetch.hosts")
    assert "write / between folders" in details["backslash"]
    assert details["query"].startswith("a.jpg?v=3: ")
    assert sorted(details) == ["backslash", "query", "web"]

    with picture_server() as server:
        web: list[Row] = [
            {"id": "second", "title": "lamp", "image": ["https://example.org/a.jpg", server.url("/ok/a.png")]},
            {"id": "path", "title": "lamp", "image": ["a.jpg"]},
        ]
        config = fetching(tmp_path / "web lists", web, [server.host])
        run(spark, config)
        assert current(config)["second"]["image"] is not None
        assert reasons(config) == {"path": "image_not_allowed"}
        assert server.statuses() == [200]
    numbers = catalogue(tmp_path / "numbers", [{"id": "1", "title": "lamp", "image": [1, 2]}])
    with pytest.raises(ConfigError, match=r"catalog.image.column: 'image' holds array<bigint>"):
        run(spark, numbers)

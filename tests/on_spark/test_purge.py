"""Purge: what goes, what stays, that nothing moves, and that a purge that was killed is finished by the next."""

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from handmade import become_run, content_name
from purged_shop import Shop, _shas
from pyspark.sql import SparkSession

from pipeline.errors import JobError
from pipeline.lake.commit import append
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta
from pipeline.on_spark.purge import outlived
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, SEMANTIC_IDS, TABLES, VECTORS, Table

pytestmark = pytest.mark.spark

NOW = datetime.now(UTC)


@pytest.fixture(params=["embedded", pytest.param("native", marks=[pytest.mark.native_delta, pytest.mark.slow])])
def shop(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Shop:
    return Shop(spark, tmp_path, request.param)


@pytest.fixture
def embedded(spark: SparkSession, tmp_path: Path) -> Shop:
    return Shop(spark, tmp_path)


def versions(lake: Lake, **of: list[tuple[int, bool]]) -> None:
    """Versions by item, oldest first: how many days ago, and whether it is a deletion."""
    for n in range(max(map(len, of.values()))):
        run_id = become_run(lake)
        rows = [
            {"item_id": item, "run_id": run_id, "deleted": each[n][1], "extracted_at": NOW - timedelta(days=each[n][0])}
            for item, each in of.items()
            if n < len(each)
        ]
        append(lake, ITEMS, pa.Table.from_pylist(rows, schema=ITEMS.schema))


def test_what_ended_before_the_limit_goes(shop: Shop) -> None:
    live, deleted = False, True
    versions(
        shop.lake,
        current=[(99, live)],
        replaced_long_ago=[(99, live), (40, live)],
        replaced_lately=[(99, live), (5, live)],
        deleted_long_ago=[(99, live), (40, deleted)],
        deleted_lately=[(99, live), (60, live), (5, deleted)],
        came_back=[(99, live), (60, deleted), (40, live)],
    )
    run = shop.purge(30)
    left = {name: sum(item == name for item in shop.column(ITEMS, "item_id")) for name in shop.column(ITEMS, "item_id")}
    assert left == {
        "current": 1,
        "replaced_long_ago": 1,
        "replaced_lately": 2,
        "deleted_lately": 2,
        "came_back": 1,
    }
    assert run.counts["items"] == 6
    assert shop.purge(30).counts == {"items": 0, "semantic_ids": 0, "vectors": 0}
    assert shop.purge(0).counts["items"] == 3


def test_outlived_against_plain_python(spark: SparkSession) -> None:
    rng, limit = random.Random(0), NOW - timedelta(days=30)
    items = {
        f"i{n}": [(NOW - timedelta(days=rng.randint(0, 60)), rng.random() < 0.3) for _ in range(rng.randint(1, 6))]
        for n in range(400)
    }

    def goes(of: list[tuple[datetime, bool]]) -> int:
        """How many of an item's versions, oldest first: as many as have each ended before the limit."""
        for n, (time, deleted) in enumerate(of):
            ended = of[n + 1][0] if n + 1 < len(of) else time if deleted else None
            if ended is None or ended >= limit:
                return n
        return len(of)

    rows = [(item, f"r{n}", deleted, time) for item, each in items.items() for n, (time, deleted) in enumerate(each)]
    rows += [row for row in rows if rng.random() < 0.1]  # a version that is there twice has not ended itself
    rng.shuffle(rows)
    frame = spark.createDataFrame(rows, "item_id string, run_id string, deleted boolean, extracted_at timestamp")
    found = sorted((row["item_id"], row["run_id"]) for row in outlived(frame, limit).collect())
    assert found == sorted((item, f"r{n}") for item, each in items.items() for n in range(goes(each)))


@pytest.mark.slow
def test_ten_nights_leave_as_many_versions_as_items(embedded: Shop) -> None:
    rng = random.Random(1)
    embedded.night({f"i{n}": f"content {n}" for n in range(12)})
    assert embedded.publish()
    for night in range(10):
        chosen = rng.sample([f"i{n}" for n in range(14)], 4)
        changed: dict[str, str | None] = {item: f"content {rng.randint(0, 20)}" for item in chosen[:3]}
        if chosen[3] in embedded.alive:
            changed[chosen[3]] = None
        embedded.night({item: content for item, content in changed.items() if embedded.alive.get(item) != content})
        if night % 3 == 2:
            embedded.purge()
            assert len(embedded.column(ITEMS, "item_id")) == len(embedded.alive)
    embedded.purge()
    embedded.check_whole()
    assert embedded.publish()
    before = embedded.rows()
    assert embedded.purge().counts == {"items": 0, "semantic_ids": 0, "vectors": 0}
    assert embedded.rows() == before


def test_nothing_that_is_released_moves(shop: Shop) -> None:
    shop.night({f"i{n}": f"content {n}" for n in range(8)})
    assert shop.publish()
    shop.night({"i0": "content 20", "i1": None, "i2": "content 3"})
    assert shop.publish()
    released = sorted(map(str, shop.lake.released_ids().to_table().to_pylist()))
    version = shop.lake.version(RELEASED_IDS)
    counts = shop.purge().counts
    assert counts["items"] == 4
    assert counts["semantic_ids"] == 3
    shop.check_whole()
    assert not shop.publish()
    assert shop.lake.version(RELEASED_IDS) == version
    assert sorted(map(str, shop.lake.released_ids().to_table().to_pylist())) == released


def test_a_vector_stays_as_long_as_any_version_refers_to_it(embedded: Shop) -> None:
    embedded.night({"a": "shared", "b": "shared", "c": "alone"})
    embedded.night({"a": "new", "c": None})
    assert embedded.purge(30).counts["vectors"] == len(_shas("alone"))
    assert set(_shas("shared")) <= set(embedded.column(VECTORS, "sha"))
    assert content_name("shared") in embedded.column(SEMANTIC_IDS, "content")


def test_an_item_is_erased_and_nothing_else(shop: Shop) -> None:
    shop.night({"kept": "shared", "gone": "shared", "other": "another"})
    shop.night({"gone": "needle"})
    fault = {"item_id": "gone", "reason": "image_decode", "detail": "needle", "source": "s", "run_id": "r"}
    faults = [fault | {"seen_at": NOW}, fault | {"item_id": "kept", "detail": "x", "seen_at": NOW}]
    append(shop.lake, QUARANTINE, pa.Table.from_pylist(faults, schema=QUARANTINE.schema))
    assert shop.publish()
    with pytest.raises(
        JobError, match=r"--item gone: it is still in the catalogue.*take it out of the source, run extr"
    ):
        shop.purge(30, "gone")
    shop.night({"gone": None, "other": "changed"})
    shop.lake.write_json("plans/20260101T020000000000-1a2b/tokenize/plan.json", {})  # done later, it brought rows back
    others = {
        table.name: [row for row in shop.rows()[table.name] if "gone" not in row] for table in (ITEMS, QUARANTINE)
    }
    run = shop.purge(30, "gone", "never seen")
    assert shop.lake.names("plans") == []
    assert run.counts == {"items": 3, "quarantine": 1, "semantic_ids": 2, "vectors": len(_shas("needle"))}
    after = shop.rows()
    assert {name: after[name] for name in others} == others
    assert not any("gone" in row for name, rows in after.items() if name != "released_ids" for row in rows)
    assert set(_shas("shared")) <= set(shop.column(VECTORS, "sha"))
    assert shop.to_do() == (0, 0)
    assert shop.publish()
    assert shop.lake.released_ids().to_table()["item_id"].to_pylist() == ["kept", "other"]
    assert shop.purge(30, "gone").counts == {"items": 0, "quarantine": 0, "semantic_ids": 0, "vectors": 0}
    for table in TABLES.values():
        if shop.lake.exists(table) and table not in (RELEASED_IDS, TABLES["release_changes"]):
            DeltaTable(shop.lake.table_uri(table)).vacuum(0, enforce_retention_duration=False, dry_run=False)
            for file in Path(shop.lake.table_uri(table)).rglob("*.parquet"):
                if "_delta_log" not in file.parts:
                    text = str(pq.read_table(file, partitioning=None).to_pylist())
                    assert "needle" not in text
                    assert "'gone'" not in text


@pytest.mark.slow
def test_an_item_that_comes_back_after_it_was_purged_is_new_and_has_its_id(embedded: Shop) -> None:
    embedded.night({"a": "content 1", "b": "content 2"})
    assert embedded.publish()
    before = dict(embedded.pairs(RELEASED_IDS, "item_id", "sid"))
    embedded.night({"a": None})
    assert embedded.publish()
    embedded.purge()
    embedded.night({"a": "content 1"})
    embedded.check_whole()
    assert embedded.publish()
    assert dict(embedded.pairs(RELEASED_IDS, "item_id", "sid")) == before


class Killed(BaseException):
    """No handler of ours may take it for a failure."""


def kill_at(monkeypatch: pytest.MonkeyPatch, tables: SparkDelta, place: int, *, after: bool) -> None:
    """End the purge before or after its commit number ``place``."""
    delete, seen = type(tables).delete, []

    def killed(self: SparkDelta, table: Table, keys: Any) -> None:
        seen.append(table)
        if len(seen) - 1 == place and not after:
            raise Killed
        delete(self, table, keys)
        if len(seen) - 1 == place:
            raise Killed

    monkeypatch.setattr(type(tables), "delete", killed)


@pytest.mark.slow
@pytest.mark.parametrize("erase", [(), ("i1",)])
def test_a_purge_that_was_killed_is_finished_by_the_next(
    embedded: Shop, erase: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.night({f"i{n}": f"content {n}" for n in range(6)})
    assert embedded.publish()
    embedded.night({"i0": "content 20", "i1": None, "i2": "content 3"})
    fault = {"item_id": "i1", "reason": "empty", "detail": "", "source": "s", "run_id": "r", "seen_at": NOW}
    append(embedded.lake, QUARANTINE, pa.Table.from_pylist([fault], schema=QUARANTINE.schema))
    folder, before = Path(embedded.lake.uri), Path(embedded.lake.uri).with_name("before")
    shutil.copytree(folder, before)
    embedded.purge(0, *erase)
    undisturbed = embedded.rows()
    commits = 4 if erase else 3
    for place, after in [(1, False), *((n, True) for n in range(commits))]:
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        with monkeypatch.context() as patched:
            kill_at(patched, embedded.tables, place, after=after)
            with pytest.raises(Killed):
                embedded.purge(0, *erase)
        embedded.purge(0, *erase)
        assert embedded.rows() == undisturbed, (place, after)
    assert embedded.to_do() == (0, 0)


def test_files_without_such_a_row_are_not_rewritten(shop: Shop) -> None:
    shop.night({f"a{n}": f"content {n}" for n in range(5)})
    kept = {table.name: set(shop.lake.files(table)) for table in (ITEMS, VECTORS, SEMANTIC_IDS)}
    shop.night({"b": "content 30"})
    shop.night({"b": "content 31"})
    before = {table.name: shop.lake.version(table) for table in (ITEMS, VECTORS, SEMANTIC_IDS)}
    shop.purge()
    for table in (ITEMS, VECTORS, SEMANTIC_IDS):
        assert kept[table.name] <= set(shop.lake.files(table))
        assert shop.lake.version(table) == (before[table.name] or 0) + 1
    shop.check_whole()

"""Releases from publish to publish, over kills and rollbacks."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from released_shop import CODES, OTHER_CODES, SHOP, A, B, ReleasedShop

import pipeline.on_spark.publish
import pipeline.release.rollback
from pipeline.errors import JobError
from pipeline.lake.compact import compact
from pipeline.lake.run import Run
from pipeline.release.pointer import default_tokenizer, released, standing_releases
from schemas.tables import RELEASED_IDS, RELEASES

pytestmark = pytest.mark.spark

SID = "s{}-{}.t{}.i{}"


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("native", marks=[pytest.mark.native_delta, pytest.mark.slow]),
        pytest.param("s3", marks=[pytest.mark.spark_on_s3, pytest.mark.slow]),
    ]
)
def any_shop(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> ReleasedShop:
    """One whose first release is made."""
    store = request.getfixturevalue("s3") if request.param == "s3" else None
    shop = ReleasedShop(spark, tmp_path, "native" if request.param == "native" else "embedded", store)
    shop.identify(CODES)
    assert shop.publish()
    return shop


def sids(codes: dict[str, Any]) -> dict[str, str]:
    return {item: SID.format(*each) for item, each in codes.items()}


def next_night(shop: ReleasedShop) -> dict[str, str]:
    """An item goes, one comes, one is edited; the IDs that readers should see."""
    night = {"i0": None, "i1": "edited", "new": "content of new"}
    codes = {"i1": (7, 7, 7, 7), "new": (6, 6, 6, 6)}
    shop.extract(night)
    shop.identify(codes, night)
    return {item: sid for item, sid in sids({**CODES, **codes}).items() if item != "i0"}


def test_readers_see_one_row_an_item_sorted_and_changes_lead_to_it(any_shop: ReleasedShop) -> None:
    shop = any_shop
    assert shop.ids() == sids(CODES)
    assert shop.changes(1) == {item: ("added", None, sid) for item, sid in sids(CODES).items()}
    after = next_night(shop)
    assert shop.publish()
    assert shop.ids() == after
    changed = {
        "i0": ("removed", "s0-0.t0.i0", None),
        "i1": ("changed", "s1-0.t1.i1", "s7-7.t7.i7"),
        "new": ("added", None, "s6-6.t6.i6"),
    }
    assert shop.changes(2) == changed
    rows = shop.lake.released_ids().to_table().to_pylist()
    files = sorted(shop.lake.files(RELEASED_IDS))
    paths = [shop.lake.path(f"released_ids/{file}") for file in files]
    tables = [pq.read_table(path, filesystem=shop.lake.filesystem) for path in paths]
    assert pa.concat_tables(tables)["item_id"].to_pylist() == sorted(after)
    assert {(row["tokenizer"], row["release"]) for row in rows} == {(A, 2)}
    release = released(shop.lake)
    assert release is not None
    assert release.released_ids_version == shop.lake.version(RELEASED_IDS)

    assert shop.rollback().version == 3
    assert shop.ids() == sids(CODES)
    undone = {"i0": ("added", None, "s0-0.t0.i0"), "new": ("removed", "s6-6.t6.i6", None)}
    assert shop.changes(3) == {**undone, "i1": ("changed", "s7-7.t7.i7", "s1-0.t1.i1")}
    assert not shop.publish()
    assert shop.publish(force=True)
    assert shop.changes(4) == changed
    assert shop.ids() == after


class Killed(BaseException):
    """Nothing in the program catches it."""


def killed(patch: pytest.MonkeyPatch, module: Any, name: str, job: Callable[[], object], call: int = 1) -> None:
    """Do ``job`` until it calls a function of a module for the ``call``-th time."""
    function, calls = getattr(module, name), itertools.count(1)

    def strike(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return function(*arguments, **named)

    patch.setattr(module, name, strike)
    with pytest.raises(Killed):
        job()
    patch.setattr(module, name, function)


@pytest.mark.parametrize("at", ["staged", "changes committed", "rows committed"])
def test_a_publish_that_is_killed_is_done_whole_by_the_next(
    any_shop: ReleasedShop, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = any_shop
    after = next_night(shop)
    where = {
        "staged": ("totals", 1),
        "changes committed": ("move_metadata", 1),
        "rows committed": ("complete_move", 2),
    }
    killed(monkeypatch, pipeline.on_spark.publish, where[at][0], shop.publish, where[at][1])
    assert shop.ids() == (after if at == "rows committed" else sids(CODES))
    assert shop.lake.dataset(RELEASES).count_rows() == 1
    assert shop.publish() == (at != "rows committed")
    assert shop.ids() == after
    release = released(shop.lake)
    assert release is not None
    assert (release.version, release.released_ids_version) == (2, shop.lake.version(RELEASED_IDS))
    assert set(shop.changes(2)) == {"i0", "i1", "new"}
    assert not shop.publish()


def test_what_was_rolled_back_from_is_held_until_its_rows_change(open_shop: ReleasedShop) -> None:
    shop = open_shop
    next_night(shop)
    assert shop.publish()
    assert shop.rollback().version == 3
    for night in (None, SHOP["i2"]):
        if night is not None:
            shop.extract({"i2": night})  # again as it was
        assert not shop.publish()
        assert shop.run.metrics["held"].startswith("release 2 was rolled back from and its rows have not changed")
        assert ("stage" in shop.run.seconds) == (night is not None)
    assert shop.ids() == sids(CODES)
    shop.extract({"i3": None})
    assert shop.publish()
    assert "held" not in shop.run.metrics
    assert shop.run.metrics["against"] == {"release": 3, "tokenizer": A}
    assert shop.run.metrics["deleted_items"] == 2
    assert "new" in shop.ids()


@pytest.mark.slow
def test_two_rollbacks_hold_both_and_another_tokenizer_too(open_shop: ReleasedShop) -> None:
    shop = open_shop
    next_night(shop)
    assert shop.publish()
    shop.identify({item: OTHER_CODES.get(item, (5, 5, 5, 5)) for item in SHOP if item not in ("i0", "i1")}, tokenizer=B)
    with pytest.raises(JobError, match="min_coverage"):
        shop.publish(B)
    assert shop.publish(B, force=True)
    assert [shop.rollback().tokenizer for _ in range(2)] == [A, A]
    assert shop.ids() == sids(CODES)
    assert not shop.publish(B)
    assert "release 3 was rolled back from" in shop.run.metrics["held"]
    assert not shop.publish(A)
    assert "release 2 was rolled back from" in shop.run.metrics["held"]
    with pytest.raises(JobError, match="no release to go back to"):
        shop.rollback()
    assert [release.version for release in standing_releases(shop.lake)] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("at", ["changes committed", "rows committed", "release committed"])
def test_a_rollback_that_is_killed_goes_back_once(
    open_shop: ReleasedShop, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop
    next_night(shop)
    assert shop.publish()
    shop.extract({"i5": None})
    assert shop.publish()
    where = {
        "changes committed": ("move_metadata", 1),
        "rows committed": ("complete_move", 2),
        "release committed": ("require_release", 2),
    }
    killed(monkeypatch, pipeline.release.rollback, where[at][0], shop.rollback, where[at][1])
    (Path(shop.lake.uri) / "runs" / shop.run.run_id / "rollback.json").unlink()  # a kill leaves no record
    assert ("i5" in shop.ids()) == (at != "changes committed")
    again = shop.rollback()
    assert (again.version, again.tokenizer) == (4, A)
    assert ("moved_by" in shop.run.metrics) == (at != "changes committed")
    assert "i5" in shop.ids()
    assert "new" in shop.ids()
    assert shop.rollback().version == 5
    assert shop.ids() == sids(CODES)


def test_a_rollback_that_failed_after_its_commit_is_not_done_twice(
    open_shop: ReleasedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop
    for night in ({"i5": None}, {"i6": None}):
        shop.extract(night)
        assert shop.publish()
    killed(monkeypatch, pipeline.release.rollback, "complete_move", shop.rollback, 2)
    failed = f"runs/{shop.run.run_id}/rollback.json"
    record = shop.lake.read_json(failed)
    assert record["status"] == "failed"
    assert (shop.rollback().version, "i6" in shop.ids(), "i5" in shop.ids()) == (4, True, False)
    assert shop.lake.read_json(failed) == record | {"noted_by": shop.run.run_id}
    assert (shop.rollback().version, "i5" in shop.ids()) == (5, True)


def test_after_a_killed_publish_jobs_go_on_under_the_tokenizer_that_readers_see(
    open_shop: ReleasedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop
    shop.identify(dict.fromkeys(SHOP, (5, 5, 5, 5)), tokenizer=B)
    publish = partial(shop.publish, B, force=True)
    killed(monkeypatch, pipeline.on_spark.publish, "complete_move", publish, 2)
    with Run("tokenize", shop.config) as run:
        assert default_tokenizer(run) == B
    release = released(shop.lake)
    assert release is not None
    assert release.tokenizer == B


def test_a_compaction_does_not_hide_what_a_killed_publish_left(
    open_shop: ReleasedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop
    next_night(shop)
    killed(monkeypatch, pipeline.on_spark.publish, "complete_move", shop.publish, 2)
    at = shop.lake.version(RELEASED_IDS)
    with Run("compact", shop.config) as run:
        compact(run)
    assert shop.rollback().version == 3
    assert [release.released_ids_version for release in standing_releases(shop.lake)] == [1]
    assert shop.ids() == sids(CODES)
    assert at == 2

"""What publish measures, what it refuses, and what it does not take for news: rules that need no engine."""

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from handmade import Codes, Night, config_of, described, extracted, identified

from pipeline.errors import GateRefused, JobError
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.release.releases import Release, publish, released, rollback, snapshot
from schemas.tables import ITEMS, RELEASES, SEMANTIC_IDS

A, B = "a" * 16, "b" * 16
OPEN = {"max_collision_rate": 1, "min_codebook_use": 0}
SHOP: Night = {f"i{n}": f"content {n}" for n in range(20)}
CODES: dict[str, Codes] = {item: (n % 8, n // 8, n % 8, n % 8) for n, item in enumerate(SHOP)}


class Shop:
    """A lake of 20 items that have codes of their own, and what happens to it."""

    def __init__(self, folder: Path, **gates: float) -> None:
        self.config = config_of(folder, gates=OPEN | gates)
        self.lake = Lake(self.config.lake)
        self.extract(SHOP)
        for tokenizer in (A, B):
            described(self.lake, tokenizer)

    def extract(self, night: Night) -> None:
        extracted(self.lake, night)

    def identify(self, codes: dict[str, Codes], night: Night = SHOP, tokenizer: str = A, **constant: Any) -> None:
        identified(self.lake, tokenizer, codes, night, **constant)

    def publish(self, tokenizer: str = A, *, force: bool = False) -> bool:
        with Run("publish", self.config, force=force) as self.run:
            return publish(self.run, tokenizer, force=force)

    def refused(self, said: str, tokenizer: str = A) -> None:
        """Nothing but the run record changes, and the record has every figure; ``said`` is one of the faults."""
        before = released(self.lake), self.lake.version(RELEASES)
        with pytest.raises(GateRefused, match=said):
            self.publish(tokenizer)
        assert (released(self.lake), self.lake.version(RELEASES)) == before
        file = Path(self.lake.uri) / "runs" / self.run.run_id / "publish.json"
        record = json.loads(file.read_text())
        assert record["status"] == "failed"
        assert not all(gate["ok"] for name, gate in record["metrics"]["gates"].items() if name != "forced")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def open_shop(shop: Shop) -> Shop:
    """One whose 20 items are released."""
    shop.identify(CODES)
    assert shop.publish()
    return shop


def test_a_first_release_has_no_drift_and_texts_alone_pass(shop: Shop) -> None:
    shop.identify({item: (*codes[:3], None) for item, codes in CODES.items()})
    assert shop.publish()
    gates = shop.run.metrics["gates"]
    assert gates["max_without_image"] == {"figure": 1.0, "limit": 1, "ok": True}
    assert not {"max_row_drift", "max_delete_fraction", "ids_moved", "max_without_image_growth"} & gates.keys()
    assert json.loads(shop.lake.read(RELEASES, ["gates"])["gates"][0].as_py()) == gates


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"max_without_image": 0.9}, r"nothing is released: max_without_image: 1, limit 0.9 \(share of items that"),
        ({"max_collision_rate": 0.05}, "max_collision_rate: 1, limit 0.05"),
        ({"min_codebook_use": 0.5}, "min_codebook_use: 0.125, limit 0.5"),
        ({"max_without_text": 0.9}, "max_without_text: 1, limit 0.9"),
    ],
)
def test_a_limit_of_the_ids_alone(tmp_path: Path, gates: dict[str, float], said: str) -> None:
    shop = Shop(tmp_path, **gates)
    shop.identify(dict.fromkeys(SHOP, (0, 0, 0, None)), has_text=False)
    shop.refused(said)


def test_every_broken_limit_is_said_at_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path, min_coverage=1, max_without_image=0.5)
    shop.identify(dict.fromkeys(list(SHOP)[:19], (0, 0, 0, None)))
    shop.refused(r"max_without_image: 1, limit 0.5 .*; min_coverage: 0.95, limit 1 .*--force")


def test_pictures_that_vanish_are_refused(open_shop: Shop) -> None:
    night = {item: f"{item} without picture" for item in list(SHOP)[:2]}
    open_shop.extract(night)
    open_shop.identify({item: (*CODES[item][:3], None) for item in night}, night)
    open_shop.refused(r"release 1 stays: max_without_image_growth: 0.1, limit 0.05 \(rise, since the release, in")


def test_a_catalogue_that_grows_or_shrinks_too_much_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path, max_row_drift=0.2, max_delete_fraction=0.1)
    shop.identify(CODES)
    assert shop.publish()
    new = {f"new {n}": f"new content {n}" for n in range(5)}
    shop.extract(new)
    shop.identify(dict.fromkeys(new, (0, 0, 0, 0)), new)
    shop.refused("max_row_drift: 0.25, limit 0.2")
    assert shop.run.metrics["new_items"] == 5
    shop.extract(dict.fromkeys(new))
    shop.extract(dict.fromkeys(list(SHOP)[:5]))
    shop.refused("max_row_drift: 0.25, limit 0.2 .*; max_delete_fraction: 0.25, limit 0.1")
    shop.extract({item: SHOP[item] for item in list(SHOP)[:3]})
    assert shop.publish()
    assert shop.run.metrics["deleted_items"] == 2


def test_items_without_an_id_are_not_deleted_items(tmp_path: Path) -> None:
    shop = Shop(tmp_path, min_coverage=0, max_delete_fraction=0)
    shop.identify(CODES)
    assert shop.publish()
    shop.extract({"i0": "edited, and not yet tokenized"})
    assert shop.publish()
    figures = shop.run.metrics
    assert (figures["deleted_items"], figures["unchanged_items"], figures["coverage"]) == (0, 19, 0.95)


@pytest.mark.parametrize("column", ["codes", "disambiguator"])
def test_an_id_that_moves_under_the_same_tokenizer_is_refused(open_shop: Shop, column: str) -> None:
    """Whoever rewrote the table: content and tokenizer are the same, so the ID has to be."""
    table = DeltaTable(open_shop.lake.table_uri(SEMANTIC_IDS))
    if column == "codes":
        table.update({"sid": "'s7-7.t7.i7'"}, predicate="item_id = 'i3'")
    else:
        table.update({"disambiguator": "disambiguator + 1"}, predicate="item_id = 'i3'")
    open_shop.refused("ids_moved: 1, limit 0 .*same tokenizer")
    assert open_shop.publish(force=True)


def test_another_tokenizer_moves_every_id_and_is_not_refused(open_shop: Shop) -> None:
    open_shop.identify({item: (7 - s, *rest) for item, (s, *rest) in CODES.items()}, tokenizer=B)
    assert open_shop.publish(B)
    assert open_shop.run.metrics["ids_moved"] == 20
    assert open_shop.run.metrics["against"] == {"release": 1, "tokenizer": A}
    assert "ids_moved" not in open_shop.run.metrics["gates"]


def test_two_items_of_one_id_are_refused(shop: Shop) -> None:
    shop.identify(dict.fromkeys(SHOP, (0, 0, 0, 0)), disambiguator=1)
    shop.refused("items_sharing_an_id: 19, limit 0")


def test_force_is_on_record_with_what_it_overruled(open_shop: Shop) -> None:
    open_shop.extract(dict.fromkeys(list(SHOP)[:5]))
    open_shop.refused("max_delete_fraction: 0.25, limit 0.2")
    assert open_shop.publish(force=True)
    record = json.loads(open_shop.lake.read(RELEASES, ["version", "gates"]).sort_by("version")["gates"][-1].as_py())
    assert record["forced"] is True
    assert record["max_delete_fraction"] == {"figure": 0.25, "limit": 0.2, "ok": False}
    assert open_shop.run.metrics["gates"] == record
    assert open_shop.run.arguments == {"force": True}


def test_files_that_are_rewritten_are_no_news(open_shop: Shop) -> None:
    lake, before = open_shop.lake, released(open_shop.lake)
    open_shop.extract(SHOP)  # the same content extracted again, in a file of its own
    for table in (ITEMS, SEMANTIC_IDS):
        version = lake.version(table)
        DeltaTable(lake.table_uri(table)).optimize.z_order(["item_id"])
        assert lake.version(table) != version
    assert not open_shop.publish()
    assert released(lake) == before
    open_shop.extract({"i0": None})
    assert open_shop.publish()


def test_a_night_without_ids_for_new_items_is_refused_though_no_id_is_new(open_shop: Shop) -> None:
    open_shop.extract({"new": "content that nobody encoded"})
    open_shop.refused("min_coverage: 0.9524, limit 0.999")


def test_drift_is_measured_against_what_a_rollback_brought_back(open_shop: Shop) -> None:
    open_shop.extract(dict.fromkeys(list(SHOP)[:4]))
    assert open_shop.publish()
    assert open_shop.run.metrics["deleted_fraction"] == 0.2
    with Run("rollback", open_shop.config) as run:
        again = rollback(run)
    assert again == Release(3, A, 1, 1)
    assert len(snapshot(open_shop.lake, again).live) == 20
    open_shop.extract({"i4": None})
    open_shop.refused("release 3 stays: max_delete_fraction: 0.25, limit 0.2")
    open_shop.extract({"i4": SHOP["i4"]})
    assert open_shop.publish()
    assert released(open_shop.lake) == Release(4, A, 4, 1)


def test_a_rollback_to_another_tokenizer_changes_what_is_gated(open_shop: Shop) -> None:
    open_shop.identify({item: (7 - s, *rest) for item, (s, *rest) in CODES.items()}, tokenizer=B)
    assert open_shop.publish(B)
    with Run("rollback", open_shop.config) as run:
        assert rollback(run).tokenizer == A
    assert open_shop.publish(B)
    assert open_shop.run.metrics["against"] == {"release": 3, "tokenizer": A}
    assert not open_shop.publish(B)


def test_a_release_whose_files_are_gone_is_left_by_force_alone(open_shop: Shop) -> None:
    (old,) = (Path(open_shop.lake.uri) / "semantic_ids").rglob("*.parquet")
    open_shop.identify({item: (7 - s, *rest) for item, (s, *rest) in CODES.items()}, tokenizer=B)
    old.unlink()
    with pytest.raises(GateRefused, match=r"the rows of release 1 cannot be read.*--force"):
        open_shop.publish(B)
    assert released(open_shop.lake) == Release(1, A, 1, 1)
    assert open_shop.publish(B, force=True)
    gates = json.loads(open_shop.lake.read(RELEASES, ["version", "gates"]).sort_by("version")["gates"][-1].as_py())
    assert (gates["forced"], gates["drift"]) == (True, "not measured")


def test_a_tokenizer_that_has_no_ids_cannot_be_published(open_shop: Shop) -> None:
    with pytest.raises(JobError, match=f"no live item has IDs under tokenizer {B}: run tokenize first"):
        open_shop.publish(B)

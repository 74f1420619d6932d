"""What publish measures and refuses, and what it does not take for news."""

from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from released_shop import CODES, OTHER_CODES, SHOP, A, B, ReleasedShop

from pipeline.errors import ConfigError, GateRefused, JobError
from pipeline.release.pointer import released
from schemas.tables import ITEMS, RELEASED_IDS, SEMANTIC_IDS

pytestmark = pytest.mark.spark


def test_a_first_release_has_no_drift_and_texts_alone_pass(shop: ReleasedShop) -> None:
    shop.identify({item: (*codes[:3], None) for item, codes in CODES.items()})
    measured = f"tokenizers/{A}/metrics.json"
    shop.lake.write_json(measured, {"generalisation": {"share": 0.73}})
    shop.refused(r"nothing is released: min_generalisation: 0.73, limit 0\.\d+ \(what a tokenizer's codes keep")
    shop.lake.write_json(measured, {"generalisation": None})
    assert shop.publish()
    gates = shop.run.metrics["gates"]
    assert gates["max_without_image"] == {"figure": 1.0, "limit": 1, "ok": True}
    assert not {"max_row_drift", "max_delete_fraction", "ids_moved", "max_without_image_growth"} & gates.keys()
    assert shop.gates() == gates
    assert shop.run.counts == {"rows_in": 20, "rows_out": 20}


def test_every_broken_limit_is_said_at_once_with_its_meaning(spark: SparkSession, tmp_path: Path) -> None:
    """A constant encoder: all items have the same codes."""
    limits = {"max_without_image": 0.5, "max_without_text": 0.9, "max_collision_rate": 0.05, "max_group": 10}
    shop = ReleasedShop(spark, tmp_path, min_coverage=1, min_perplexity=0.2, max_code_share=5, **limits)
    shop.identify(dict.fromkeys(list(SHOP)[:19], (0, 0, 0, None)), has_text=False)
    faults = [
        r"nothing is released: max_collision_rate: 1, limit 0.05 \(share of items whose codes",
        r"max_group: 19, limit 10 \(different contents that",
        r"max_code_share: 8, limit 5 \(items in",
        r"max_without_text: 1, limit 0.9 \(share of items that have no text\)",
        r"max_without_image: 1, limit 0.5",
        r"min_perplexity: 0.125, limit 0.2 \(perplexity of",
        r"min_coverage: 0.95, limit 1 \(.*\)\. hisam publish --tokenizer \w{16} --force",
    ]
    shop.refused("; ".join(f"{fault}.*" for fault in faults).replace(".*;", "[^;]*;"))


def test_pictures_that_vanish_are_refused(open_shop: ReleasedShop) -> None:
    night = {item: f"{item} without picture" for item in list(SHOP)[:2]}
    open_shop.extract(night)
    open_shop.identify({item: (*CODES[item][:3], None) for item in night}, night)
    open_shop.refused(r"release 1 stays: max_without_image_growth: 0.1, limit 0.05 \(rise, since the release, in")


def test_a_catalogue_that_grows_or_shrinks_too_much_is_refused(released_once: ReleasedShop, tmp_path: Path) -> None:
    shop = released_once.copied_to(tmp_path, max_row_drift=0.2, max_delete_fraction=0.1)
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


def test_items_without_an_id_are_not_deleted_items(released_once: ReleasedShop, tmp_path: Path) -> None:
    shop = released_once.copied_to(tmp_path, min_coverage=0, max_delete_fraction=0)
    shop.extract({"i0": "edited, and not yet tokenized"})
    assert shop.publish()
    figures = shop.run.metrics
    assert (figures["deleted_items"], figures["unchanged_items"], figures["coverage"]) == (0, 19, 0.95)
    assert shop.changes(2) == {"i0": ("removed", "s0-0.t0.i0", None)}


@pytest.mark.parametrize("column", ["sid", pytest.param("item_hash", marks=pytest.mark.slow)])
def test_an_id_that_moves_under_the_same_tokenizer_is_refused(open_shop: ReleasedShop, column: str) -> None:
    """Whoever rewrote the table: content and tokenizer are the same, so the ID has to be."""
    table = DeltaTable(open_shop.lake.table_uri(SEMANTIC_IDS))
    table.update({column: {"sid": "'s7-7.t7.i7'", "item_hash": "item_hash + 1"}[column]}, predicate="item_id = 'i3'")
    table.update({"content": f"'{'0' * 32}'"}, predicate="item_id = 'i4'")  # without which nothing would be news
    open_shop.refused("ids_moved: 1, limit 0 .*same tokenizer")
    assert open_shop.publish(force=True)


def test_another_tokenizer_moves_every_id_and_is_not_refused(open_shop: ReleasedShop) -> None:
    open_shop.identify(OTHER_CODES, tokenizer=B)
    assert open_shop.publish(B)
    assert open_shop.run.metrics["ids_moved"] == 20
    assert open_shop.run.metrics["against"] == {"release": 1, "tokenizer": A}
    assert "ids_moved" not in open_shop.run.metrics["gates"]
    assert {change for change, *_ in open_shop.changes(2).values()} == {"changed"}
    assert len(open_shop.changes(2)) == 20


def test_two_items_of_one_id_are_refused(shop: ReleasedShop) -> None:
    shop.identify(dict.fromkeys(SHOP, (0, 0, 0, 0)), item_hash=1)
    shop.refused("items_sharing_an_id: 19, limit 0")


def test_force_is_on_record_with_what_it_overruled(open_shop: ReleasedShop) -> None:
    open_shop.extract(dict.fromkeys(list(SHOP)[:5]))
    open_shop.refused("max_delete_fraction: 0.25, limit 0.2")
    assert open_shop.publish(force=True)
    record = open_shop.gates()
    assert record["forced"] is True
    assert record["max_delete_fraction"] == {"figure": 0.25, "limit": 0.2, "ok": False}
    assert open_shop.run.metrics["gates"] == record
    assert open_shop.run.arguments == {"force": True}


def test_files_that_are_rewritten_are_no_news(open_shop: ReleasedShop) -> None:
    lake, before = open_shop.lake, released(open_shop.lake)
    for table in (ITEMS, SEMANTIC_IDS):
        DeltaTable(lake.table_uri(table)).optimize.z_order(["item_id"])
    assert not open_shop.publish()
    assert "stage" not in open_shop.run.seconds
    open_shop.extract(SHOP)  # the same content extracted again
    open_shop.identify(CODES)  # and what overlapping runs write twice
    assert not open_shop.publish()
    assert "stage" in open_shop.run.seconds
    assert released(lake) == before
    assert not list(Path(lake.uri).glob("released_ids/staged-*/*.parquet")) or lake.files(RELEASED_IDS)


def test_a_night_without_ids_for_new_items_is_refused_though_no_id_is_new(open_shop: ReleasedShop) -> None:
    open_shop.extract({"new": "content that nobody encoded"})
    open_shop.refused("min_coverage: 0.9524, limit 0.999")


def test_a_release_whose_files_are_gone_is_left_by_force_alone(open_shop: ReleasedShop) -> None:
    for file in open_shop.lake.files(RELEASED_IDS):
        Path(open_shop.lake.uri, "released_ids", file).unlink()
    with pytest.raises(GateRefused, match=r"the rows of release 1 cannot be read.*--force"):
        open_shop.publish()
    assert open_shop.publish(force=True)
    assert (open_shop.gates()["forced"], open_shop.gates()["drift"]) == (True, "not measured")
    assert len(open_shop.ids()) == 20


def test_a_tokenizer_that_has_no_ids_cannot_be_published(open_shop: ReleasedShop) -> None:
    with pytest.raises(JobError, match=f"no current item has an ID under tokenizer {B}: run tokenize first"):
        open_shop.publish(B)
    with pytest.raises(ConfigError, match="has no 'cccc"):
        open_shop.publish("c" * 16)
    assert not list(Path(open_shop.lake.uri).glob("released_ids/staged-*/_temporary"))
    assert len(open_shop.ids()) == 20

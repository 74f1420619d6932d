"""The figures that gates look at, counted by Spark, against plain counting; and the limits at their very values."""

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import config_of
from pyspark.sql import DataFrame, SparkSession

from pipeline.config.models import Gates
from pipeline.on_spark.delta import spark_schema
from pipeline.on_spark.gate_figures import code_use, collisions, drift, measure, totals
from pipeline.on_spark.released_ids import changes
from pipeline.release.gates import broken, check
from schemas.semantic_id import Layout
from schemas.tables import RELEASED_IDS

pytestmark = pytest.mark.spark

LAYOUT = Layout(2, 1, 1, 5)
Row = dict[str, Any]


def random_rows(seed: int, items: int) -> list[Row]:
    """Items of few codes, contents and hashes, some without text or picture."""
    choose = random.Random(seed)
    rows = []
    for number in choose.sample(range(2 * items), items):
        text, image = choose.choice([(1, 1), (1, 0), (0, 1)])
        codes = [choose.choice([0, 0, 1, 4]) for _ in range(4)]
        rows.append(
            {
                "item_id": f"i{number}",
                "item_hash": choose.choice([number, 7]),
                "content": choose.choice("uvwxyz"),
                "tokenizer": "a" * 16,
                "release": 1,
                "shared": codes[:2],
                "text": codes[2:3] if text else None,
                "image": codes[3:] if image else None,
                "sid": f"s{codes[0]}-{codes[1]}"
                + (f".t{codes[2]}" if text else "")
                + (f".i{codes[3]}" if image else ""),
                "has_text": bool(text),
                "has_image": bool(image),
            }
        )
    return rows


def frame(spark: SparkSession, rows: list[Row]) -> DataFrame:
    values = [tuple(row[name] for name in RELEASED_IDS.schema.names) for row in rows]
    return spark.createDataFrame(values, spark_schema(RELEASED_IDS)).repartition(3)


def test_figures_are_the_same_to_the_bit_in_any_order(spark: SparkSession) -> None:
    layout = Layout(1, 0, 0, 500)
    choose = random.Random(0)
    rows = [row | {"shared": [int(choose.paretovariate(0.4)) % 500]} for row in random_rows(4, 1000)]
    found = {
        code_use(frame(spark, rows).repartition(parts, "item_id"), layout)["shared_0"]["perplexity"] for parts in (1, 5)
    }
    choose.shuffle(rows)
    found |= {code_use(frame(spark, rows).repartition(parts), layout)["shared_0"]["perplexity"] for parts in (2, 7, 11)}
    assert len(found) == 1


@pytest.mark.parametrize(("seed", "items"), [(0, 1), (1, 7), (2, 60), (3, 200)])
def test_figures_are_those_of_plain_counting(spark: SparkSession, seed: int, items: int) -> None:
    rows = random_rows(seed, items)
    contents, tuples, ids = defaultdict(set), Counter(), Counter()
    for row in rows:
        contents[row["sid"]].add(row["content"])
        tuples[row["sid"]] += 1
        ids[row["sid"], row["item_hash"]] += 1
    found = frame(spark, rows)
    assert collisions(found) == {
        "collision_rate": sum(len(contents[row["sid"]]) > 1 for row in rows) / items,
        "items_sharing_codes": sum(n for n in tuples.values() if n > 1),
        "largest_group": max(map(len, contents.values())),
        "items_sharing_an_id": sum(n - 1 for n in ids.values()),
    }
    levels = {
        "shared_0": [row["shared"][0] for row in rows],
        "shared_1": [row["shared"][1] for row in rows],
        "text_0": [row["text"][0] for row in rows if row["text"]],
        "image_0": [row["image"][0] for row in rows if row["image"]],
    }
    used = code_use(found, LAYOUT)
    assert used.keys() == {name for name, codes in levels.items() if codes}
    for name, level in used.items():
        share_K = np.bincount(levels[name]) / len(levels[name])
        usable = min(5, len(levels[name]))
        share_U = share_K[share_K > 0]
        assert level["items"] == len(levels[name])
        assert level["perplexity"] == pytest.approx(np.exp(-(share_U * np.log(share_U)).sum()) / usable)
        assert level["code_share"] == pytest.approx(share_K.max() * usable)
    without = sum(not row["has_text"] for row in rows) / items
    counted = totals(found)
    assert counted.without["text"] == pytest.approx(without)
    assert counted.coverage(2 * items)["coverage"] == 0.5
    figures = measure(found, counted, LAYOUT)
    assert figures["without_text"] == counted.without["text"]
    assert figures["perplexity"] == min(level["perplexity"] for level in used.values())
    assert figures["code_share"] == max(level["code_share"] for level in used.values())


@pytest.mark.parametrize("seed", range(3))
def test_drift_and_changes_are_those_of_plain_counting(spark: SparkSession, seed: int) -> None:
    before, after = ({row["item_id"]: row for row in random_rows(seed * 10 + n, 40)} for n in (1, 2))
    for item in list(before)[:15]:
        after[item] = before[item]
    unindexed = [f"j{n}" for n in range(5)] + list(before.keys() - after.keys())[:3]  # current, without an ID
    old, new = frame(spark, list(before.values())), frame(spark, list(after.values()))
    current = spark.createDataFrame([(item,) for item in (*after, *unindexed)], "item_id string")
    figures = drift(old, new, current)
    same = [i for i in before if i in after and before[i]["content"] == after[i]["content"]]
    gone = before.keys() - after.keys() - set(unindexed)
    of = ("has_text", "has_image")  # a modality that came to an item moves its ID
    alike = [i for i in same if all(before[i][name] == after[i][name] for name in of)]
    ids = [[(rows[i]["sid"], rows[i]["item_hash"]) for i in alike] for rows in (before, after)]
    for name in ("text", "image"):
        shares = [sum(not row[f"has_{name}"] for row in rows.values()) / len(rows) for rows in (before, after)]
        assert figures.pop(f"without_{name}_growth") == pytest.approx(shares[1] - shares[0])
    assert figures == {
        "row_drift": pytest.approx(abs(len(after) - 40) / 40),
        "deleted_items": len(gone),
        "deleted_fraction": len(gone) / 40,
        "new_items": len(after.keys() - before.keys()),
        "unchanged_items": len(same),
        "ids_moved": sum(a != b for a, b in zip(*ids, strict=True)),
    }
    expected = {}
    for item in before.keys() | after.keys():
        a, b = ((rows[item]["sid"], rows[item]["content"]) if item in rows else None for rows in (before, after))
        if a != b:
            kind = "changed" if a and b else "added" if b else "removed"
            expected[item] = (3, kind, a and a[0], b and b[0])
    assert {
        item: rest
        for item, *rest in changes(old, new, 3).select("item_id", "release", "change", "old_sid", "new_sid").collect()
    } == {item: list(rest) for item, rest in expected.items()}


def test_a_digest_names_rows_and_nothing_else(spark: SparkSession) -> None:
    rows = random_rows(5, 50)
    counted = totals(frame(spark, rows))
    assert totals(frame(spark, rows[::-1]).coalesce(1)) == counted
    others = [
        rows[1:],
        [rows[0] | {"content": "other"}, *rows[1:]],
        [rows[0] | {"sid": "s9-9"}, *rows[1:]],
        [rows[0] | {"item_id": "other"}, *rows[1:]],
    ]
    names = {totals(frame(spark, each)).digest("a" * 16) for each in others}
    assert len(names | {counted.digest("a" * 16), counted.digest("b" * 16)}) == 6


def spread(spark: SparkSession, codes: list[int]) -> DataFrame:
    """One level of text codes, every item with a content and a tuple of its own."""
    none = {"tokenizer": "a" * 16, "release": 1, "text": None, "image": None, "has_text": True, "has_image": False}
    return frame(
        spark,
        [
            {"item_id": f"i{n}", "item_hash": n, "content": f"c{n}", "shared": [code], "sid": f"s{code}-{n}"} | none
            for n, code in enumerate(codes)
        ],
    )


@pytest.mark.parametrize("seed", range(3))
def test_few_items_spread_at_random_over_many_codes_pass(spark: SparkSession, seed: int) -> None:
    choose = random.Random(seed)
    items = 200 + 25 * seed
    rows = spread(spark, [choose.randrange(256) for _ in range(items)])
    figures = measure(rows, totals(rows), Layout(1, 0, 0, 256))
    assert broken(check(figures, Gates())) == []
    assert 0.5 < figures["perplexity"] < 0.75
    assert figures["code_share"] < 8


def test_a_collapsed_level_is_refused_however_many_codes_are_used(spark: SparkSession) -> None:
    """99 % of a million items in one code of 256, every other code used; and a constant encoder."""
    million = spark.range(1_000_000).selectExpr(
        "CAST(id AS string) item_id",
        "id item_hash",
        "CAST(id AS string) content",
        "array(CAST(IF(id % 100 = 0, id / 100 % 256, 0) AS smallint)) shared",
        "CAST(NULL AS array<smallint>) text",
        "CAST(NULL AS array<smallint>) image",
    )
    used = code_use(million, Layout(1, 0, 0, 256))["shared_0"]
    figures = {"perplexity": used["perplexity"], "code_share": used["code_share"]}
    assert used["code_share"] == pytest.approx(0.99 * 256, rel=0.01)
    assert [fault.split(":")[0] for fault in broken(check(figures, Gates()))] == ["max_code_share", "min_perplexity"]
    rows = spread(spark, [3] * 50)
    constant = measure(rows, totals(rows), Layout(1, 0, 0, 256))
    assert {fault.split(":")[0] for fault in broken(check(constant, Gates()))} == {"max_code_share", "min_perplexity"}


def test_limits_hold_at_their_very_value() -> None:
    limits = {"max_collision_rate": 0.25, "min_coverage": 0.5, "max_group": 3, "min_perplexity": 0.5}
    gates = config_of(Path("nowhere"), gates=limits).gates
    at = check({"collision_rate": 0.25, "coverage": 0.5, "largest_group": 3, "perplexity": 0.5}, gates)
    past = check({"collision_rate": 0.2501, "coverage": 0.4999, "largest_group": 4, "perplexity": 0.49}, gates)
    assert [entry["ok"] for entry in (*at.values(), *past.values())] == [True] * 4 + [False] * 4

"""What moving to another tokenizer would mean, against plain counting, dense assignment and the library's figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import TOKENIZER, config_of, described, extracted, identified
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from scipy.optimize import linear_sum_assignment
from scipy.stats import contingency
from sklearn.metrics import adjusted_mutual_info_score

from pipeline.lake.storage import Lake
from pipeline.on_spark.tokenizer_comparison import SAMPLE, by_level, compare_tokenizers, matched

pytestmark = pytest.mark.spark

A, B = "a" * 16, "b" * 16


def compared(spark: SparkSession, lake: Lake) -> dict[str, Any]:
    return compare_tokenizers(spark, lake, config_of(Path("nowhere")).spark, A, B)


def test_items_are_counted_by_what_they_have(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake.create(config_of(tmp_path).lake)
    night = {f"i{n}": f"content {n}" for n in range(8)} | {"gone": "x"}
    extracted(lake, night)
    for tokenizer in (A, B):
        described(lake, tokenizer)
    codes = {f"i{n}": (n // 2, n % 2, n, n if n % 2 else None) for n in range(7)}
    renamed = {item: ((s + 3) % 8, r, 7 - t, i) for item, (s, r, t, i) in codes.items()}
    renamed["i1"] = (5, *renamed["i1"][1:])  # its group is the other one now: with i4 and i5
    identified(lake, A, codes | {"gone": (0, 0, 0, 0)}, night)
    identified(lake, B, {item: renamed[item] for item in ("i6", "i5", "i4", "i3", "i2", "i1")}, night)
    extracted(lake, {"gone": None, "i0": "edited"})
    identified(lake, B, {"i0": (0, 0, 0, 0)}, {"i0": "edited"})
    found = compared(spark, lake)
    counts = {name: found[name] for name in ("items", "released_alone", "tokenizer_alone", "without_either")}
    assert counts == {"items": 6, "released_alone": 0, "tokenizer_alone": 1, "without_either": 1}
    levels = {level["slot"]: level for level in found["levels"]}
    shared = levels["shared_0"]
    assert (shared["items"], shared["renumbered"], shared["moved"]) == (6, 1, pytest.approx(1 / 6))
    assert 0 < shared["prefix_information"] < 1
    assert (levels["shared_1"]["renumbered"], levels["shared_1"]["moved"]) == (0, 0)
    assert (levels["text_0"]["renumbered"], levels["text_0"]["moved"]) == (1, 0)
    assert (levels["image_0"]["items"], levels["image_0"]["renumbered"]) == (3, 0)
    assert found["collision_rate"] == {A: 0, B: 0}


def test_parts_whose_levels_differ_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake.create(config_of(tmp_path).lake)
    night = {"i0": "x", "i1": "y"}
    extracted(lake, night)
    described(lake, A)
    described(lake, B, TOKENIZER.model_copy(update={"shared_levels": 1, "text_levels": 2}))
    codes = {"i0": (1, 2, 3, None), "i1": (2, 2, 3, None)}
    identified(lake, A, codes, night)
    identified(lake, B, codes, night, shared=[5], text=[1, 2])
    found = compared(spark, lake)["levels"]
    assert [(level["slot"], level["items"]) for level in found] == [("shared_0", 2), ("image_0", 0)]
    assert (found[0]["renumbered"], found[0]["moved"], found[0]["prefix_information"]) == (1, 0.5, 0)


CODES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=60)


@settings(deadline=None)
@given(CODES)
def test_the_best_renaming_is_that_of_the_dense_assignment(pairs: list[tuple[int, int]]) -> None:
    old_N, new_N = np.array(pairs, np.int16).T
    table = contingency.crosstab(old_N, new_N).count
    distinct, items_P = np.unique(np.stack([old_N, new_N]), axis=1, return_counts=True)
    assert matched(*distinct, items_P) == table[linear_sum_assignment(table, maximize=True)].sum()


def pairs_of(spark: SparkSession, old_NL: np.ndarray, new_NL: np.ndarray, hash_N: np.ndarray) -> DataFrame:
    rows = list(zip(hash_N.tolist(), old_NL.tolist(), new_NL.tolist(), strict=True))
    return spark.createDataFrame(rows, "item_hash bigint, old array<smallint>, new array<smallint>").repartition(3)


def test_figures_of_a_level_against_the_library_and_blind_to_numbering(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    old_NL = rng.integers(0, 6, (400, 3)).astype(np.int16)
    names = rng.permutation(6).astype(np.int16)
    renamed = by_level("shared", pairs_of(spark, old_NL, names[old_NL], np.arange(400)), 3)
    assert [(f["moved"], f["prefix_information"]) for f in renamed] == [(0, pytest.approx(1))] * 3
    new_NL = np.where(rng.random((400, 3)) < 0.7, names[old_NL], rng.integers(0, 6, (400, 3))).astype(np.int16)
    prefixes = [[str(row[:2]) for row in codes_NL] for codes_NL in (old_NL, new_NL)]
    figures = by_level("shared", pairs_of(spark, old_NL, new_NL, np.arange(400)), 3)[1]
    assert figures["prefix_information"] == pytest.approx(adjusted_mutual_info_score(*prefixes))
    assert figures["renumbered"] == (old_NL[:, 1] != new_NL[:, 1]).mean()
    assert 0.15 < figures["moved"] < 0.3


def test_mutual_information_looks_at_the_items_of_the_smallest_hashes(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    hash_N = rng.permutation(SAMPLE + 500)
    old_NL = rng.integers(0, 6, (len(hash_N), 1)).astype(np.int16)
    new_NL = np.where(hash_N[:, None] < SAMPLE, old_NL, 0)
    (found,) = by_level("s", pairs_of(spark, old_NL, new_NL, hash_N), 1)
    assert found["prefix_information"] == pytest.approx(1)
    assert found["renumbered"] == pytest.approx(500 / len(hash_N) * 5 / 6, rel=0.1)

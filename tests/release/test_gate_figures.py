"""The figures that gates look at, against plain counting."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from handmade import TOKENIZER, config_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.release.gates import Snapshot, check, collisions, drift, measure, nothing_new

A = "a" * 16
ROWS = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("xyz"), st.integers(0, 2)), min_size=1, max_size=30)


def ids_table(found: list[tuple[str, str, int]]) -> pa.Table:
    sid, content, number = zip(*found, strict=True)
    columns = {"item_id": [f"i{n}" for n in range(len(found))], "sid": sid, "content_hash": content}
    return pa.table(columns | {"disambiguator": pa.array(number, pa.int64())})


@given(ROWS)
def test_collisions_are_those_of_plain_counting(found: list[tuple[str, str, int]]) -> None:
    contents = defaultdict(set)
    for sid, content, _ in found:
        contents[sid].add(content)
    tuples = Counter(sid for sid, _, _ in found)
    figures = collisions(ids_table(found))
    assert figures["collision_rate"] == pytest.approx(sum(len(contents[s]) > 1 for s, _, _ in found) / len(found))
    assert figures["items_sharing_codes"] == sum(n for n in tuples.values() if n > 1)
    assert figures["items_sharing_an_id"] == len(found) - len({(sid, number) for sid, _, number in found})


ITEMS_OF = st.dictionaries(
    st.sampled_from([f"i{n}" for n in range(9)]),
    st.tuples(st.sampled_from("uv"), st.sampled_from("xy"), st.integers(0, 1), st.booleans(), st.booleans()),
    min_size=1,
)


@settings(deadline=None)
@given(ITEMS_OF, ITEMS_OF, st.randoms())
def test_drift_is_that_of_plain_counting(before: Any, after: Any, random: Any) -> None:
    def snapshot_of(found: Any) -> Snapshot:
        items = list(found)
        random.shuffle(items)
        sid, content, number, text, image = zip(*(found[item] for item in items), strict=True)
        columns = {"item_id": items, "sid": sid, "content_hash": content, "has_text": text, "has_image": image}
        rows = pa.table(columns | {"disambiguator": pa.array(number, pa.int64())})
        return Snapshot(A, rows["item_id"], rows)

    old, new = snapshot_of(before), snapshot_of(after)
    figures = drift(old, new)
    same = [i for i in before if i in after and before[i][1] == after[i][1]]
    assert figures["unchanged_items"] == len(same)
    assert figures["ids_moved"] == sum((before[i][0], before[i][2]) != (after[i][0], after[i][2]) for i in same)
    assert figures["deleted_items"] == len(before.keys() - after.keys())
    assert figures["new_items"] == len(after.keys() - before.keys())
    assert figures["row_drift"] == pytest.approx(abs(len(after) - len(before)) / len(before))
    shares = [sum(not row[4] for row in rows.values()) / len(rows) for rows in (before, after)]
    assert figures["without_image_growth"] == pytest.approx(shares[1] - shares[0])
    seen = [{item: row[:3] for item, row in rows.items()} for rows in (before, after)]
    assert nothing_new(old, new, figures) == (seen[0] == seen[1])


def test_a_missing_modality_is_counted_where_the_layout_gives_it_no_level() -> None:
    layout = TOKENIZER.model_copy(update={"method": "rq_kmeans"}).layout()
    columns = {"sid": ["s1-1-1-1", "s2-1-1-1"], "content_hash": ["x", "y"], "has_text": [True, True]}
    rows = pa.table(
        columns
        | {
            "disambiguator": pa.array([1, 2], pa.int64()),
            "shared": pa.array([[1] * sum(layout.levels), [2] * sum(layout.levels)], pa.list_(pa.int16())),
            "text": pa.array([[], []], pa.list_(pa.int16())),
            "image": pa.array([[], []], pa.list_(pa.int16())),
            "has_image": [False, True],
        }
    )
    figures = measure(Snapshot(A, pa.chunked_array([["i0", "i1"]]), rows), layout)
    assert (figures["without_text"], figures["without_image"]) == (0, 0.5)


def test_limits_hold_at_their_very_value() -> None:
    gates = config_of(Path("nowhere"), gates={"max_collision_rate": 0.25, "min_coverage": 0.5}).gates
    at = check({"collision_rate": 0.25, "coverage": 0.5}, gates)
    past = check({"collision_rate": 0.2501, "coverage": 0.4999}, gates)
    assert [entry["ok"] for entry in (*at.values(), *past.values())] == [True, True, False, False]

"""The live view and the cutting of work, against plain Python."""

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lake.live import chunks, live_items, only, without
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS

EVENTS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.sampled_from("xyz"), st.booleans()), max_size=4),
    min_size=1,
    max_size=4,
)


def version(item: str, content: str, deleted: bool, run: int) -> dict[str, object]:
    return {"item_id": item, "content_hash": content, "deleted": deleted, "run_id": f"r{run}", "extracted_at": run}


@given(EVENTS)
def test_the_live_view_is_the_newest_version_that_is_not_deleted(
    tmp_path_factory, events: list[dict[str, tuple[str, bool]]]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    assert live_items(lake).num_rows == 0
    lake.create(ITEMS)
    expected: dict[str, tuple[str, str]] = {}
    for run, night in enumerate(events):
        rows = [version(item, content, deleted, run) for item, (content, deleted) in night.items()]
        if rows:
            lake.append(ITEMS, pa.Table.from_pylist(rows, schema=ITEMS.schema))
        for item, (content, deleted) in night.items():
            expected.pop(item, None)
            if not deleted:
                expected[item] = (content, f"r{run}")
    live = live_items(lake).to_pylist()
    assert {row["item_id"]: (row["content_hash"], row["run_id"]) for row in live} == expected
    assert all((Path(lake.table_uri(ITEMS)) / row["file"]).is_file() for row in live)


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 20))
def test_chunks_hold_every_row_once_with_its_file(files: list[str], commit_rows: int) -> None:
    rows = pa.table({"key": pa.array(range(len(files)), pa.int64()), "file": pa.array(files, pa.string())})
    found = list(chunks(rows, commit_rows))
    assert sorted(key for chunk in found for key in chunk.rows["key"].to_pylist()) == list(range(len(files)))
    for chunk in found:
        assert set(chunk.rows["file"].to_pylist()) == set(chunk.files)
    assert len({file for chunk in found for file in chunk.files}) == sum(len(chunk.files) for chunk in found)
    assert all(chunk.rows.num_rows >= commit_rows for chunk in found[:-1])


def test_keys_of_several_columns_do_not_run_together() -> None:
    rows = pa.table({"a": ["x", "xy"], "b": ["yz", "z"]})
    done = pa.table({"a": ["x"], "b": ["yz"]})
    assert without(rows, done, ["a", "b"]).to_pylist() == [{"a": "xy", "b": "z"}]
    assert only(rows, done, ["a", "b"]).to_pylist() == [{"a": "x", "b": "yz"}]

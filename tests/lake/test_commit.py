"""One commit: what becomes of staged files, and what the log says of them."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from committed import ENCODER, changes, faults, shas, staged, statistics, vectors
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from writing import as_writer

from pipeline.errors import JobError
from pipeline.lake.commit import (
    append,
    commit,
    replace_files,
    stage,
    staged_files,
    staging_folder,
)
from pipeline.lake.file_entries import LAST
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, QUARANTINE, RELEASE_CHANGES, RELEASES, VECTORS


def test_rows_are_added_and_partitions_replaced(lake: Lake) -> None:
    append(lake, VECTORS, vectors("a", "b"))
    append(lake, VECTORS, vectors("c", encoder="other"))
    assert shas(lake) == ["a", "b", "c"]
    commit(lake, VECTORS, [staged(lake, "d")], overwrite={"encoder": ENCODER})
    assert shas(lake) == ["c", "d"]
    assert shas(lake, ds.field("encoder") == ENCODER) == ["d"]
    commit(lake, VECTORS, [], overwrite={"encoder": "other"})
    assert shas(lake) == ["d"]
    commit(lake, VECTORS, [staged(lake, "e")], overwrite={})
    assert shas(lake) == ["e"]
    assert DeltaTable(lake.table_uri(VECTORS)).to_pyarrow_table()["sha"].to_pylist() == ["e"]


def test_a_partition_may_be_a_number(lake: Lake) -> None:
    append(lake, RELEASE_CHANGES, changes(1, "a").slice(0, 1))
    append(lake, RELEASE_CHANGES, pa.concat_tables([changes(2, "a", "b"), changes(10, "c")]))
    file = stage(lake, RELEASE_CHANGES, changes(2, "z"), {"release": 2})
    commit(lake, RELEASE_CHANGES, [file], overwrite={"release": "2"})
    assert lake.files(RELEASE_CHANGES, {"release": "2"}) == [file]
    assert len(lake.files(RELEASE_CHANGES, {"release": "10"})) == 1
    found = lake.read(RELEASE_CHANGES, ["release", "item_id"]).sort_by("release").to_pylist()
    assert [tuple(row.values()) for row in found] == [(1, "a"), (2, "z"), (10, "c")]


def test_a_filter_opens_the_files_whose_bounds_let_it_through(lake: Lake) -> None:
    files = [staged(lake, *each) for each in (("a", "c"), ("d", "f"), ("g", "i"))]
    commit(lake, VECTORS, files)
    for row, (least, most) in zip(statistics(lake, VECTORS), ["ac", "df", "gi"], strict=True):
        assert (row["num_records"], row["min.sha"], row["max.sha"]) == (2, least, most)
    for file in (files[0], files[2]):
        (Path(lake.table_uri(VECTORS)) / file).unlink()
    assert shas(lake, ds.field("sha") == "e") == []
    assert shas(lake, ds.field("sha").isin(["d", "f"])) == ["d", "f"]
    with pytest.raises(FileNotFoundError):
        shas(lake, ds.field("sha") == "a")


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=70),
            st.sampled_from(["\uffff", "\U0001f600", "\ue000", "z" * 1024, "\u00e9" * 512, LAST * 256]),
        ),
        min_size=1,
        unique=True,
    ).map(lambda ids: [i for i in ids if not any(unicodedata.category(c) == "Cs" for c in i)] or ["x"])
)
def test_no_key_is_outside_its_files_bounds(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    lake = as_writer(Lake.create(str(tmp_path_factory.mktemp("lake"))))
    for half in (ids[::2], ids[1::2]):
        if half:
            append(lake, QUARANTINE, faults(*half))
    for row in statistics(lake, QUARANTINE):
        assert row["min.item_id"] <= row["max.item_id"]
        assert len(row["min.item_id"]) <= 64
    for item in ids:
        found = lake.read(QUARANTINE, ["item_id"], where=ds.field("item_id") == item)
        assert found["item_id"].to_pylist() == [item]


def test_long_keys_have_short_bounds(lake: Lake) -> None:
    append(lake, QUARANTINE, faults("\u00e9" * 512, "b" * 65))
    append(lake, QUARANTINE, faults("\u00e9" * 63 + LAST * 100))
    first, second = sorted(statistics(lake, QUARANTINE), key=lambda row: row["min.item_id"])
    assert (first["min.item_id"], first["max.item_id"]) == ("b" * 64, "\u00e9" * 64 + LAST)
    assert (second["min.item_id"], second["max.item_id"]) == tuple("\u00e9" * 63 + LAST * n for n in (1, 101))


@pytest.mark.parametrize("compacted", [False, True])
def test_a_filter_on_any_column_finds_its_rows(lake: Lake, compacted: bool) -> None:
    """deltalake's dataset takes a column without bounds, of a file that might have them, for an empty range."""
    row = {"text": "t", "deleted": False, "extracted_at": 0}
    rows = [{"item_id": "x" * 1024, "run_id": "r1", **row}, {"item_id": "a", "run_id": "r2", **row}]
    append(lake, ITEMS, pa.Table.from_pylist(rows, schema=ITEMS.schema))
    append(lake, ITEMS, pa.Table.from_pylist(rows[:1], schema=ITEMS.schema))
    if compacted:
        lake.delta(ITEMS).optimize.compact()
    for where, count in (
        (ds.field("item_id") == "x" * 1024, 2),
        (ds.field("item_id") == "a", 1),
        (~ds.field("deleted"), 3),
        (ds.field("text") == "t", 3),
        (ds.field("image").is_null(), 3),
        (ds.field("row_hash").is_null() & (ds.field("run_id") == "r1"), 2),
        (ds.field("extracted_at") < ds.scalar(pa.scalar(1, ITEMS.schema.field("extracted_at").type)), 3),
    ):
        assert lake.read(ITEMS, ["run_id"], where=where).num_rows == count
        assert DeltaTable(lake.table_uri(ITEMS)).to_pyarrow_dataset().to_table(filter=where).num_rows == count


def test_numbers_have_bounds_too(lake: Lake) -> None:
    row = {"tokenizer": "t", "action": "publish", "gates": "{}", "digest": "d", "run_id": "r", "time": 0}
    row |= {"items_version": 1, "semantic_ids_version": 1, "released_ids_version": 1}
    for version in (-1, 2**40):
        append(lake, RELEASES, pa.Table.from_pylist([{"version": version, **row}], schema=RELEASES.schema))
    assert sorted(row["max.version"] for row in statistics(lake, RELEASES)) == [-1, 2**40]
    assert lake.read(RELEASES, ["version"], where=ds.field("version") > 0)["version"].to_pylist() == [2**40]
    assert lake.read(RELEASES, ["version"], where=ds.field("action") == "publish").num_rows == 2


def test_the_same_step_again_changes_nothing(lake: Lake) -> None:
    assert commit(lake, VECTORS, [staged(lake, "a")], step=("plan", 0))
    version = lake.version(VECTORS)
    assert not commit(lake, VECTORS, [staged(lake, "a")], step=("plan", 0))
    assert lake.version(VECTORS) == version
    assert commit(lake, VECTORS, [staged(lake, "b")], step=("plan", 1))
    assert not commit(lake, VECTORS, [staged(lake, "a")], step=("plan", 0))
    assert commit(lake, VECTORS, [], step=("plan", 2))
    assert lake.delta(VECTORS).transaction_version("plan") == 2
    assert commit(lake, VECTORS, [staged(lake, "c")], step=("another plan", 0))
    assert shas(lake) == ["a", "b", "c"]


def test_a_step_that_two_commit_at_once_is_committed_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DeltaTable.create_write_transaction

    def after_the_other(delta: DeltaTable, *given: Any, **how: Any) -> None:
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        commit(lake, VECTORS, [staged(lake, "a")], step=("plan", 0))
        real(delta, *given, **how)

    append(lake, VECTORS, vectors("z"))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", after_the_other)
    with pytest.raises(JobError, match="at the same time"):
        commit(lake, VECTORS, [staged(lake, "a")], step=("plan", 0))
    assert shas(lake) == ["a", "z"]


def test_files_without_a_row_are_left_out(lake: Lake) -> None:
    empty = stage(lake, VECTORS, vectors().slice(0, 0), {"encoder": ENCODER})
    assert commit(lake, VECTORS, [empty])
    assert lake.version(VECTORS) == 0
    commit(lake, VECTORS, [empty, staged(lake, "a")])
    assert len(lake.files(VECTORS)) == 1
    append(lake, VECTORS, vectors())
    assert lake.version(VECTORS) == 1


def test_files_of_many_writers_are_rows_alike(lake: Lake) -> None:
    """Row groups, dictionaries, old string encodings and a missing footer statistic are all a file's own business."""
    folder = f"{staging_folder()}/encoder={ENCODER}"
    where = Path(lake.table_uri(VECTORS)) / folder
    where.mkdir(parents=True)
    for name, ids, how in (
        ("groups", [f"a{n:04}" for n in range(1000)], {"row_group_size": 7}),
        ("bare", ["b"], {"write_statistics": False}),
        ("old", ["c"], {"version": "1.0", "use_dictionary": False, "compression": "snappy"}),
    ):
        pq.write_table(vectors(*ids).drop_columns(["encoder"]), where / f"{name}.parquet", **how)
    (where / ".old.parquet.crc").write_bytes(b"crc")
    files = staged_files(lake, VECTORS, folder)
    assert [Path(file).stem for file in files] == ["bare", "groups", "old"]
    commit(lake, VECTORS, files)
    said = {Path(row["path"]).stem: (row["num_records"], row.get("max.sha")) for row in statistics(lake, VECTORS)}
    assert said == {"groups": (1000, "a0999"), "bare": (1, "b"), "old": (1, "c")}
    assert shas(lake, ds.field("sha") > "a0998") == ["a0999", "b", "c"]
    assert set(lake.read(VECTORS, ["encoder"])["encoder"].to_pylist()) == {ENCODER}


def test_files_go_and_come_in_one_commit(lake: Lake) -> None:
    files = [staged(lake, *each) for each in ("ab", "cd", "ef")]
    commit(lake, VECTORS, files)
    replace_files(lake, VECTORS, files[:2], [staged(lake, "a")])
    assert shas(lake) == ["a", "e", "f"]
    assert lake.version(VECTORS) == 2
    assert len(lake.files(VECTORS, {"encoder": ENCODER})) == 2
    assert shas(Lake(lake.uri)) == ["a", "e", "f"]
    assert sorted(lake.read(VECTORS, ["sha"], version=1)["sha"].to_pylist()) == list("abcdef")


def test_files_that_went_meanwhile_are_not_taken_away_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign compaction, which carries no transaction of ours, must not double the rows that it moved."""
    files = [staged(lake, *each) for each in ("ab", "cd")]
    commit(lake, VECTORS, files)
    real = DeltaTable.create_write_transaction

    def after_a_compaction(delta: DeltaTable, *given: Any, **how: Any) -> None:
        DeltaTable(lake.table_uri(VECTORS)).optimize.compact()
        real(delta, *given, **how)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", after_a_compaction)
    with pytest.raises(JobError, match=r"vectors in .* was written by another program at the same time.*run it again"):
        replace_files(lake, VECTORS, [files[0]], [staged(lake, "a")])
    monkeypatch.undo()
    with pytest.raises(JobError, match=f"vectors/{files[0]} in .* was rewritten by another program: run it again"):
        replace_files(lake, VECTORS, [files[0]], [staged(lake, "a")])
    assert shas(lake) == ["a", "b", "c", "d"]


def test_a_foreign_compaction_beside_an_overwrite_leaves_the_old_rows_or_the_new(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, VECTORS, [staged(lake, *each) for each in ("ab", "cd")])
    real = DeltaTable.create_write_transaction

    def after_a_compaction(delta: DeltaTable, *given: Any, **how: Any) -> None:
        DeltaTable(lake.table_uri(VECTORS)).optimize.compact()
        real(delta, *given, **how)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", after_a_compaction)
    with pytest.raises(JobError, match="was written by another program at the same time"):
        commit(lake, VECTORS, [staged(lake, "z")], overwrite={})
    assert shas(lake) == ["a", "b", "c", "d"]
    append(lake, VECTORS, vectors("e"))  # which takes nothing away, and so need not fail
    assert shas(lake) == ["a", "b", "c", "d", "e"]


def test_tables_keep_their_log_and_files_for_as_long_as_a_release_may_stand(lake: Lake) -> None:
    append(lake, QUARANTINE, faults("a"))
    kept = DeltaTable(lake.table_uri(QUARANTINE)).metadata().configuration
    assert kept["delta.logRetentionDuration"] == "interval 3650 days"
    assert kept["delta.deletedFileRetentionDuration"] == "interval 90 days"
    append(lake, QUARANTINE, faults("b"))
    commit(lake, QUARANTINE, [], overwrite={})
    assert DeltaTable(lake.table_uri(QUARANTINE)).vacuum(dry_run=True) == []


def test_rows_that_depart_from_the_declaration_are_not_written(lake: Lake) -> None:
    append(lake, QUARANTINE, faults("a"))
    twice = pa.concat_tables([faults("b"), faults("b")])
    strange = faults("b").set_column(1, "reason", pa.array(["bored"]))
    null = faults("b").set_column(0, "item_id", pa.array([None], pa.string()))
    wrong = pa.table({"item_id": [1], "more": [2]})
    for rows, said in (
        (twice, r"1 keys appear more than once, such as \{'item_id': 'b', 'reason': 'empty'\}"),
        (strange, "column 'reason' has values that are not declared: bored"),
        (null, "column 'item_id' has 1 nulls"),
        (wrong, "column 'reason' is missing.*column 'more' is not declared.*column 'item_id' is int64"),
    ):
        with pytest.raises(ValueError, match=f"quarantine: {said}"):
            append(lake, QUARANTINE, rows)
    assert lake.version(QUARANTINE) == 1
    append(lake, QUARANTINE, faults("b").cast(pa.schema([f.with_type(pa.large_string()) if pa.types.is_string(f.type)
                                                         else f for f in QUARANTINE.schema])))  # fmt: skip
    assert sorted(lake.read(QUARANTINE, ["item_id"])["item_id"].to_pylist()) == ["a", "b"]


def test_the_metadata_is_kept_with_the_commit(lake: Lake) -> None:
    said = {"hisam": json.dumps({"release": 3, "name": "caf\u00e9 \U0001f600"})}
    commit(lake, VECTORS, [staged(lake, "a")], metadata=said)
    assert json.loads(lake.delta(VECTORS).history(1)[0]["hisam"]) == {"release": 3, "name": "caf\u00e9 \U0001f600"}

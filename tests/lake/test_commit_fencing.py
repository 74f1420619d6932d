"""Who may make a commit: the holder of the lock, until a later run has committed."""

from pathlib import Path
from typing import Any

import pytest
from committed import faults, shas, staged, vectors
from deltalake import CommitProperties, DeltaTable, Transaction
from writing import as_writer

from pipeline.errors import JobError
from pipeline.lake.commit import (
    RUNS,
    append,
    commit,
    fence,
    fenced,
    replace_files,
)
from pipeline.lake.run import new_run_id
from pipeline.lake.storage import Lake
from schemas.tables import QUARANTINE, SEMANTIC_IDS, VECTORS


def test_who_does_not_hold_the_lock_writes_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for attempt in (
        lambda: append(lake, VECTORS, vectors("a")),
        lambda: commit(lake, VECTORS, [], overwrite={}),
        lambda: replace_files(lake, VECTORS, [], []),
        lambda: fenced(lake, VECTORS).__enter__(),
    ):
        with pytest.raises(JobError, match="only a job that holds the lake's lock may write to vectors"):
            attempt()
    assert not lake.exists(VECTORS)


def test_who_has_lost_the_lock_writes_nothing(lake: Lake) -> None:
    def lost() -> None:
        raise JobError("the lease was lost")

    append(lake, VECTORS, vectors("a"))
    lake.writer = lake.writer and type(lake.writer)("encode", lake.writer.run_id, lost)
    with pytest.raises(JobError, match="the lease was lost"):
        append(lake, VECTORS, vectors("b"))
    assert shas(lake) == ["a"]


@pytest.mark.parametrize("when", ["before it begins", "before it puts its commit"])
@pytest.mark.parametrize("kind", ["append", "overwrite", "replace", "delete", "restore"])
def test_an_overtaken_run_writes_nothing(lake: Lake, when: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append(lake, VECTORS, vectors("a"))
    append(lake, VECTORS, vectors("b"))
    later = Lake(lake.uri)

    def overtake() -> None:
        as_writer(later)
        fence(later)
        append(later, VECTORS, vectors("later"))

    def attempt() -> None:
        if kind == "append":
            append(lake, VECTORS, vectors("stale"))
        elif kind == "overwrite":
            commit(lake, VECTORS, [staged(lake, "stale")], overwrite={})
        elif kind == "replace":
            replace_files(lake, VECTORS, lake.files(VECTORS)[:1], [staged(lake, "stale")])
        else:
            with fenced(lake, VECTORS) as (delta, transactions):
                properties = CommitProperties(app_transactions=transactions)
                if when != "before it begins":
                    overtake()
                if kind == "delete":
                    delta.delete("sha = 'a'", commit_properties=properties)
                else:
                    delta.restore(1, commit_properties=properties)

    if when == "before it begins":
        overtake()
    elif kind in ("append", "overwrite", "replace"):
        real = DeltaTable.create_write_transaction

        def after_the_later(delta: DeltaTable, *given: Any, **how: Any) -> None:
            monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
            overtake()
            real(delta, *given, **how)

        monkeypatch.setattr(DeltaTable, "create_write_transaction", after_the_later)
    with pytest.raises(JobError, match=r"has been written by a later run than test \(2.*, run it again$"):
        attempt()
    assert shas(Lake(lake.uri)) == ["a", "b", "later"]


def test_a_run_may_commit_as_often_as_it_likes_and_so_may_the_next(lake: Lake) -> None:
    first = lake.writer
    for n in range(5):
        append(lake, VECTORS, vectors(f"a{n}"))
    next_run = as_writer(Lake(lake.uri))
    append(next_run, VECTORS, vectors("b"))
    assert next_run.writer is not None
    assert first is not None
    assert first.versions.stop <= next_run.writer.versions.start
    assert next_run.delta(VECTORS).transaction_version(RUNS) in next_run.writer.versions
    append(lake, QUARANTINE, faults("c"))  # of another table the later run has written nothing
    fence(next_run)
    with pytest.raises(JobError, match="a later run"):
        append(lake, QUARANTINE, faults("d"))
    assert not next_run.exists(SEMANTIC_IDS)


def test_another_failure_is_told_as_it_is(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    append(lake, VECTORS, vectors("a"))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", full)
    with pytest.raises(OSError, match="No space left"):
        append(lake, VECTORS, vectors("b"))


def test_a_foreign_transaction_is_no_later_run(lake: Lake) -> None:
    append(lake, VECTORS, vectors("a"))
    other = CommitProperties(app_transactions=[Transaction("spark-streaming", 2**60)])
    lake.delta(VECTORS).create_write_transaction([], "append", VECTORS.schema, commit_properties=other)
    append(lake, VECTORS, vectors("b"))
    assert shas(lake) == ["a", "b"]
    assert new_run_id(lake) < "29"

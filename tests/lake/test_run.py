"""Run ids, which order the versions of an item; and the record that every job leaves."""

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from writing import as_writer

from pipeline.config.models import Config, LockSettings
from pipeline.errors import JobError
from pipeline.lake.commit import RUNS, append, commit, run_time, stage
from pipeline.lake.run import Run, new_run_id
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, QUARANTINE

HOLD = """
import sys
from pipeline.config.models import Config
from pipeline.lake.run import Run

with Run("encode", Config.model_validate_json(sys.argv[1])) as run:
    print(run.run_id, flush=True)
    sys.stdin.read()
"""


def config(folder: Path) -> Config:
    source = {"path": "items.csv", "format": "csv"}
    return Config.model_validate(
        {"lake": str(folder / "lake"), "catalog": {"source": source, "id": "id", "text": "{t}"}}
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.create(str(tmp_path / "lake"))


def record(run: Run) -> dict[str, Any]:
    return json.loads((Path(run.lake.uri) / "runs" / run.run_id / f"{run.job}.json").read_text())


def item(lake: Lake, run_id: str, **version: Any) -> None:
    row = {"item_id": "a", "run_id": run_id, "deleted": False, "extracted_at": 0} | version
    append(lake, ITEMS, pa.Table.from_pylist([row], schema=ITEMS.schema))


def in_a_year() -> str:
    return f"{datetime.now(UTC) + timedelta(days=365):%Y%m%dT%H%M%S%f}-abcd"


def test_run_ids_sort_by_time_to_the_microsecond(lake: Lake) -> None:
    ids = [new_run_id(lake) for _ in range(50)]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"\d{8}T\d{12}-[0-9a-f]{4}", run_id) for run_id in ids)
    assert abs(run_time(ids[0]) - time.time() * 1e6) < 60e6
    for microseconds in (0, 1, 999_999, 123_457):
        began = datetime(2037, 1, 2, 3, 4, 5, microseconds, tzinfo=UTC)
        assert run_time(f"{began:%Y%m%dT%H%M%S%f}-0000") % 1_000_000 == microseconds


def test_an_id_is_later_than_every_record_whatever_the_clock(lake: Lake) -> None:
    ahead = in_a_year()
    known = {ahead}
    for _ in range(300):
        lake.write_json(f"runs/{max(known)}/extract.json", {})
        run_id = new_run_id(lake)
        assert run_id > max(known)
        assert run_time(run_id) == run_time(max(known)) + 1  # equal microseconds would be ordered by chance
        known.add(run_id)


def test_an_id_is_later_than_every_version_of_an_item(lake: Lake) -> None:
    ahead = in_a_year()
    item(as_writer(lake), ahead)
    item(lake, "20200101T000000000000-abcd", item_id="b")
    assert run_time(new_run_id(lake)) == run_time(ahead) + 1
    lake.delta(ITEMS).optimize.compact()
    assert run_time(new_run_id(lake)) == run_time(ahead) + 1


def test_an_id_is_later_than_every_commit_of_a_run_that_left_no_record(lake: Lake) -> None:
    """Killed while its clock was ahead: the next run's commits must not be taken for those of an overtaken one."""
    row = {"item_id": "a", "reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    rows = pa.Table.from_pylist([row], schema=QUARANTINE.schema)
    ahead = in_a_year()
    append(as_writer(lake, ahead), QUARANTINE, rows)
    assert lake.names("runs") == []
    next_run = as_writer(Lake(lake.uri))
    append(next_run, QUARANTINE, rows)
    assert next_run.writer is not None
    assert run_time(next_run.writer.run_id) == run_time(ahead) + 1


def test_folders_of_another_make_are_no_runs(lake: Lake) -> None:
    for name in (
        "20991231T000000000000-backup",
        "2099",
        "20991399T999999999999-abcd",
        ".tmp",
        "29991231T0-abcd",
        "zzz",
    ):
        lake.write_json(f"runs/{name}/extract.json", {})
    assert new_run_id(lake) < in_a_year()


def test_a_run_whose_clock_is_behind_counts_on_from_the_last_one(lake: Lake, tmp_path: Path) -> None:
    ahead = in_a_year()
    lake.write_json(f"runs/{ahead}/extract.json", {})
    ids = [ahead]
    for job in ("extract", "encode"):
        with Run(job, config(tmp_path)) as run:
            with Run("inner", config(tmp_path), run_id=run.run_id) as inner:
                assert inner.run_id == run.run_id
            ids.append(run.run_id)
            assert run.lake.writer is not None
            assert run.lake.writer.run_id == run.run_id
        assert record(run)["run_id"] == run.run_id
    assert [run_time(run_id) - run_time(ahead) for run_id in ids] == [0, 1, 2]


def test_a_run_that_waited_has_a_later_id_than_the_one_that_it_waited_for(tmp_path: Path) -> None:
    waiting = config(tmp_path).model_copy(update={"lock": LockSettings(wait_seconds=60)})
    waiter = Run("extract", waiting)  # before the other one begins
    command = [sys.executable, "-c", HOLD, config(tmp_path).model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        first = holder.stdout.readline().strip()
        before = waiter.run_id
        assert before < first
        holder.stdin.close()
        with waiter:
            assert waiter.run_id > first
    assert record(waiter)["run_id"] == waiter.run_id
    assert not (tmp_path / "lake" / "runs" / before).exists()


def test_a_plan_that_was_made_before_keeps_its_id_and_has_a_later_place(lake: Lake, tmp_path: Path) -> None:
    with Run("encode-plan", config(tmp_path)) as planning:
        pass
    with Run("extract", config(tmp_path)) as between:
        item(between.lake, between.run_id)
    for _ in range(2):  # killed, and done again
        with Run("encode", config(tmp_path), run_id=planning.run_id) as run:
            assert run.run_id == planning.run_id
            assert run.lake.writer is not None
            assert run.lake.writer.versions.start > lake.delta(ITEMS).transaction_version(RUNS)
            item(run.lake, "r")  # of a table that another run has written since
    late = stage(run.lake, ITEMS, lake.read(ITEMS, ITEMS.schema.names).slice(0, 1), {})
    with (
        Run("encode", config(tmp_path), run_id=planning.run_id) as run,
        pytest.raises(JobError, match=rf"has been written by a later run than the plan of {run.run_id}: plan again"),
    ):
        commit(run.lake, ITEMS, [late], step=("plan", 0))


def test_after_its_end_a_run_writes_nothing(tmp_path: Path) -> None:
    with Run("extract", config(tmp_path)) as run:
        item(run.lake, run.run_id)
    with pytest.raises(JobError, match="only a job that holds the lake's lock may write to items"):
        item(run.lake, run.run_id)


def test_a_run_that_does_not_get_to_its_work_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.lake.run._newest", lambda lake: 1 / 0)
        with pytest.raises(ZeroDivisionError), Run("extract", config(tmp_path)):
            pytest.fail("it has no id")
    with Run("extract", config(tmp_path)) as run:
        pass
    assert record(run)["status"] == "done"


def test_a_reader_has_no_writer_and_needs_a_lake(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no lake in"):
        Run("export", config(tmp_path), writes=False)
    Lake.create(str(tmp_path / "lake"))
    with Run("export", config(tmp_path), writes=False) as run:
        assert run.lake.writer is None
    assert record(run)["status"] == "done"


def test_a_record_says_what_was_done(tmp_path: Path) -> None:
    with Run("extract", config(tmp_path), tokenizer="abc") as run:
        run.count(rows_in=3, rows_out=2)
        run.count(rows_out=1)
        with run.phase("read"):
            ballast = bytearray(80_000_000)
            time.sleep(0.7)
        item(run.lake, run.run_id)
        run.read(ITEMS)
        run.wrote(ITEMS)
    written = record(run)
    assert written["status"] == "done"
    assert written["arguments"] == {"tokenizer": "abc"}
    assert written["counts"] == {"rows_in": 3, "rows_out": 3}
    assert written["tables"] == {"read": {"items": 1}, "written": {"items": 1}}
    assert written["seconds"]["read"] >= 0.7
    assert written["peak_memory_bytes"] > len(ballast)


@pytest.mark.parametrize("error", [JobError("no such thing"), ValueError("a bug")])
def test_a_failed_job_leaves_a_record_too(tmp_path: Path, error: Exception) -> None:
    run = Run("encode", config(tmp_path))

    def job() -> None:
        with run:
            run.count(rows_in=5)
            raise error

    with pytest.raises(type(error), match=str(error)):
        job()
    written = record(run)
    assert written["status"] == "failed"
    assert str(error) in str(written["error"])
    assert written["counts"] == {"rows_in": 5}

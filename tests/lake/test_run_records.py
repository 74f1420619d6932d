"""What records tell: whether anything has changed since a job's last run."""

import shutil
from pathlib import Path

import pytest
from committed import faults, vectors
from handmade import become_run, config_of, extracted, writable

import pipeline.lake.run_records as run_records
from pipeline.config.models import Config
from pipeline.lake.commit import append
from pipeline.lake.compact import compact
from pipeline.lake.run import Run
from pipeline.lake.run_records import RunRecords, unchanged_since
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, QUARANTINE, VECTORS


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def lake(config: Config) -> Lake:
    """One with two tables of two files each, and a run that knew them so."""
    lake = writable(config.lake)
    for item in ("a", "b"):
        append(lake, QUARANTINE, faults(item))
        append(lake, VECTORS, vectors(item))
    unchanged(config)
    return lake


def unchanged(config: Config, *, fail: bool = False, source: str = "s") -> bool:
    """Whether a run of a job finds all as the last one left it."""
    with Run("job", config) as run:
        found = unchanged_since(run, RunRecords(run.lake).finished("job"), [QUARANTINE, VECTORS], source=source)
        if fail:
            raise OSError("the disk is gone")
    return found is not None


def test_a_commit_to_any_table_is_a_change_and_a_compaction_is_none(config: Config, lake: Lake) -> None:
    for table, rows in ((QUARANTINE, faults("c")), (VECTORS, vectors("c"))):
        assert unchanged(config)
        become_run(lake)
        append(lake, table, rows)
        assert not unchanged(config)
    with Run("compact", config) as run:
        compact(run)
    assert run.counts["files_removed"] > 0
    assert unchanged(config)


def test_what_a_run_wrote_itself_is_no_change(config: Config, lake: Lake) -> None:
    with Run("job", config) as run:
        assert unchanged_since(run, RunRecords(lake).finished("job"), [QUARANTINE, VECTORS], source="s")
        append(run.lake, VECTORS, vectors("c"))
        run.wrote(VECTORS)
    assert unchanged(config)


def test_other_facts_and_another_release_of_the_program_are_changes(
    config: Config, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not unchanged(config, source="another")
    assert not unchanged(config)
    assert unchanged(config)
    monkeypatch.setattr(run_records, "version", lambda _: "0.0.1")
    assert not unchanged(config)


def test_a_run_that_failed_left_nothing_to_rely_on(config: Config, lake: Lake) -> None:
    become_run(lake)
    append(lake, VECTORS, vectors("c"))
    with pytest.raises(OSError, match="disk"):
        unchanged(config, fail=True)
    assert not unchanged(config)
    assert unchanged(config)


def test_before_the_first_run_nothing_is_known_and_a_table_that_is_not_there_may_stay_away(
    config: Config, lake: Lake
) -> None:
    def of_items() -> str | None:
        with Run("other", config) as run:
            return unchanged_since(run, RunRecords(lake).finished("other"), [ITEMS])

    assert of_items() is None
    assert of_items() is not None
    extracted(lake, {"a": "lamp"})
    assert of_items() is None


def test_a_table_that_was_removed_or_made_anew_has_changed(config: Config, lake: Lake) -> None:
    shutil.rmtree(lake.path(VECTORS.name))
    assert not unchanged(config)
    assert unchanged(config)
    for name in ("c", "d"):
        become_run(lake)
        append(lake, VECTORS, vectors(name))
    assert not unchanged(config)
    shutil.rmtree(lake.path(VECTORS.name))
    become_run(lake)
    append(lake, VECTORS, vectors("e"))  # of a lower version
    assert not unchanged(config)


def test_a_record_that_cannot_be_read_is_passed_over_and_told(
    config: Config, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    (first,) = lake.names("runs")
    assert unchanged(config)
    second = lake.names("runs")[-1]
    torn = Path(lake.path(f"runs/{second}/job.json"))
    torn.write_bytes(b"")
    lake.write_json("runs/latest/job.json", {"run_id": "latest", "status": "failed"})  # no run's
    only = Path(lake.path(f"runs/{first}/export.json"))
    only.write_bytes(b"{")
    records = RunRecords(lake)
    for record in (records.finished("job"), records.newest_of_each()["job"], *records.newest("job", 5)):
        assert record is not None
        assert record["run_id"] == first
    assert {message.split(" ")[0] for message in caplog.messages} == {str(torn), str(only)}
    assert records.jobs() == ["job"]
    assert unchanged(config)

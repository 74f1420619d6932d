"""Vacuum and compaction of a lake that nights, kills and rollbacks have left their marks on."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from nights import run_night
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.config.models import Config, SparkSettings
from pipeline.demo.generator import mutate
from pipeline.errors import ConfigError, JobError
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.compact import compact
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.extract import extract
from pipeline.release.releases import Release, export, publish, released, released_ids, rollback, standing_releases
from pipeline.release.vacuum import vacuum
from schemas.tables import ITEMS, SEMANTIC_IDS, TABLES

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]

OLD = 48 * 3600


def rows(config: Config, release: Release | None = None) -> dict[str, list[dict]]:
    """Every row of every table, in an order of its own; items and IDs as a release names them."""
    lake, found = Lake(config.lake), {}
    versions = {ITEMS: release.items_version, SEMANTIC_IDS: release.semantic_ids_version} if release else {}
    for name, table in TABLES.items():
        read = lake.read(table, table.schema.names, version=versions.get(table))
        found[name] = sorted(read.to_pylist(), key=repr)
    return found


def ids(config: Config) -> list[dict]:
    lake = Lake(config.lake)
    release = released(lake)
    assert release is not None
    return released_ids(lake, release, ["item_id", "sid", "disambiguator"]).sort_by("item_id").to_pylist()


def versions(config: Config) -> dict[str, int | None]:
    return {name: Lake(config.lake).version(table) for name, table in TABLES.items()}


def files(config: Config) -> set[str]:
    lake = Path(config.lake)
    return {str(path.relative_to(lake)) for path in lake.glob("*/**/*") if path.is_file()} - set(records(lake))


def records(lake: Path) -> Iterator[str]:
    yield from (str(path.relative_to(lake)) for path in lake.glob("runs/*/*.json"))


def plant(config: Config, age: float, mark: str) -> set[str]:
    """What killed jobs leave, of an age in seconds; the names."""
    lake = Lake(config.lake)
    tokenizer = fingerprints(lake, "tokenizers")[0]
    names = {
        f"items/staged-{mark}/part-0.parquet",
        f"items/staged-{mark}/.part-0.parquet.crc",
        f"items/staged-{mark}/_temporary/0/task/part-1.parquet",
        f"items/_delta_log/{mark}.tmp",
        f"semantic_ids/tokenizer={tokenizer}/{mark}.parquet",
        f"embeddings/encoder={mark}/{mark}.parquet",
        f"staging/{mark}/part-0.parquet",
        f"runs/{mark}/encode.json.part",
        f"checkpoints/tokenizer-{mark}/checkpoint_1/training.safetensors",
        f"tokenizers/{mark}/model.safetensors",
        f"rankers/{mark}/metrics.json",
    }
    then = time.time() - age
    for name in names:
        path = Path(config.lake, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    for name in names:
        path = Path(config.lake, name)
        os.utime(path, (then, then))
        for folder in path.relative_to(config.lake).parents:
            if mark in str(folder):
                os.utime(Path(config.lake, folder), (then, then))
    return names


def test_leftovers_are_swept_and_nothing_else(nights_config: Config) -> None:
    config = nights_config
    with Run("vacuum", config) as run:
        vacuum(run, 0)  # what a night has replaced
    before, whole, at = rows(config), files(config), versions(config)
    old, young = plant(config, OLD, "dead"), plant(config, 60, "alive")
    with Run("vacuum", config) as run:
        found = vacuum(run, 24, dry_run=True)
    assert {leftover.path for leftover in found} == old
    assert files(config) == whole | old | young
    with Run("vacuum", config) as run:
        assert vacuum(run, 24) == found
    assert files(config) == whole | young
    assert not list(Path(config.lake).rglob("*dead*"))
    assert run.counts["files"] == len(old)
    assert run.counts["bytes"] == 5 * len(old)
    assert run.metrics["places"]["items"] == {"files": 4, "bytes": 20}
    with Run("vacuum", config) as run:
        assert vacuum(run, 24) == []
    assert run.counts == {"files": 0, "bytes": 0, "folders": 0}
    assert (rows(config), versions(config)) == (before, at)


def test_what_a_killed_writer_left_is_swept_and_what_it_committed_stays(
    spark: SparkSession, nights_shop: Path, nights_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = nights_config
    with Run("vacuum", config) as run:
        vacuum(run, 0)  # what a night has replaced
    mutate(nights_shop, 0.1, seed=2)
    before, whole = rows(config), files(config)

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr(DeltaTable, "create_write_transaction", killed)
    with pytest.raises(SystemExit), Run("extract", config) as run:
        extract(spark, run)
    monkeypatch.undo()
    orphans = files(config) - whole
    assert any(name.startswith("items/staged-") and name.endswith(".parquet") for name in orphans)
    with Run("vacuum", config) as run:
        assert vacuum(run, 1) == []
    with Run("vacuum", config) as run:
        assert {leftover.path for leftover in vacuum(run, 0)} == orphans
    assert files(config) == whole
    assert rows(config) == before
    with Run("extract", config) as run:
        extract(spark, run)
    assert run.counts["rows_out"] == 9
    stored = rows(config)
    with Run("vacuum", config) as run:
        vacuum(run, 0)
    assert rows(config) == stored
    assert all(name in files(config) for name in whole if name.startswith("items/"))


@pytest.mark.slow
@pytest.mark.native_delta
def test_native_delta_loses_no_file_either(spark: SparkSession, nights_shop: Path, nights_config: Config) -> None:
    config = nights_config.model_copy(update={"spark": SparkSettings(delta="native")})
    mutate(nights_shop, 0.1, seed=2)
    run_night(spark, config)
    with Run("compact", config) as run:
        compact(run)
    stored, now = rows(config), ids(config)
    with Run("vacuum", config) as run:
        vacuum(run, 0)
    assert (rows(config), ids(config)) == (stored, now)
    at = versions(config)
    runs = run_night(spark, config)
    assert versions(config) == at
    assert [run.counts.get("rows_out", 0) for run in runs.values()] == [0, 0, 0, 0]


@pytest.mark.slow
def test_a_compacted_lake_has_the_same_rows_and_ids_and_idle_nights(
    spark: SparkSession, nights_shop: Path, nights_config: Config
) -> None:
    config, lake = nights_config, Lake(nights_config.lake)
    first, second = standing_releases(lake)
    before, now, then = rows(config), ids(config), rows(config, first)
    with Run("compact", config) as run:
        compact(run)
    assert len(lake.files(ITEMS, {})) == len(lake.files(SEMANTIC_IDS, {})) == 1
    assert rows(config) == before
    assert ids(config) == now

    at = versions(config)
    with Run("vacuum", config) as run:
        vacuum(run, 0)
    runs = run_night(spark, config)
    assert versions(config) == at
    assert released(lake) == second
    assert [run.counts.get("rows_out", 0) for run in runs.values()] == [0, 0, 0, 0]
    with Run("compact", config) as run:
        compact(run)
    assert versions(config) == at

    mutate(nights_shop, 0.1, seed=2)
    runs = run_night(spark, config)
    assert runs["encode"].counts["rows_out"] == runs["tokenize"].counts["rows_out"] == 9
    third = ids(config)
    with Run("vacuum", config) as run:
        vacuum(run, 0)
    for expected in (second, first):  # back over the compaction, to files that it replaced
        with Run("rollback", config) as run:
            back = rollback(run)
        assert (back.items_version, back.semantic_ids_version) == (
            expected.items_version,
            expected.semantic_ids_version,
        )
        with Run("vacuum", config) as run:
            vacuum(run, 0)
        read = rows(config, back)
        assert read["items"] == (then if expected == first else before)["items"]
        assert read["semantic_ids"] == (then if expected == first else before)["semantic_ids"]

    with Run("publish", config) as run:
        assert publish(run, fingerprints(lake, "tokenizers")[0])
    assert ids(config) == third
    stored = rows(config)
    with Run("vacuum", config) as run:
        assert vacuum(run, 0, keep_releases=1)
    assert (rows(config), ids(config)) == (stored, third)
    with Run("rollback", config) as run, pytest.raises(JobError, match="release 1 cannot be read any more"):
        rollback(run)
    assert ids(config) == third


def test_the_commands_say_what_they_did(nights_config: Config, nights_shop: Path) -> None:
    def hisam(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "-c", str(nights_shop / "config.yaml")], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    plant(nights_config, OLD, "dead")
    assert "items/_delta_log/dead.tmp" in hisam("vacuum", "--dry-run")
    hisam("compact")
    said = hisam("vacuum")
    assert "deleted of" in said
    assert "vacuum: done in" in said
    assert "files 11, bytes 55" in said
    assert "nothing" in hisam("vacuum")
    with pytest.raises(ConfigError, match="delete under readers"):
        hisam("vacuum", "--older-than-hours", "0")


def test_an_export_replaces_an_export_and_nothing_else(nights_config: Config, tmp_path: Path) -> None:
    config = nights_config
    folder = tmp_path / "out"
    for _ in range(2):
        with Run("export", config) as run:
            file = export(run, folder)
    assert pq.read_table(file).select(["item_id", "sid", "disambiguator"]).to_pylist() == ids(config)
    assert [path.name for path in folder.iterdir()] == [file.name]
    pq.write_table(pa.table({"mine": [1]}), file)
    with Run("export", config) as run, pytest.raises(ConfigError, match="is not an export"):
        export(run, folder)
    assert pq.read_table(file).to_pylist() == [{"mine": 1}]
    with Run("export", config) as run, pytest.raises(ConfigError, match="is a file, not a folder"):
        export(run, file)

"""Vacuum and compaction of a lake that nights, kills and rollbacks have left their marks on."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from handmade import encoded
from pyspark.sql import SparkSession
from released_shop import CODES, SHOP, A, ReleasedShop
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.compact import compact
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.release.pointer import released, standing_releases
from pipeline.release.vacuum import Leftover, vacuum
from schemas.tables import ITEMS, RELEASED_IDS, SEMANTIC_IDS, TABLES

pytestmark = pytest.mark.spark

OLD = 48 * 3600


@pytest.fixture(scope="module")
def released_twice(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ReleasedShop:
    return two_releases(ReleasedShop(spark, tmp_path_factory.mktemp("released")))


@pytest.fixture
def shop(released_twice: ReleasedShop, tmp_path: Path) -> ReleasedShop:
    """One of two releases and rows in every table that a night writes."""
    return released_twice.copied_to(tmp_path)


def two_releases(shop: ReleasedShop) -> ReleasedShop:
    encoded(shop.lake, [text for text in SHOP.values() if text], {"text": "1" * 16, "image": "2" * 16}, files=2)
    shop.identify(CODES)
    assert shop.publish()
    change(shop, "second", "i1")
    return shop


def change(shop: ReleasedShop, mark: str, gone: str) -> None:
    """Publish a night in which an item goes, one comes and one is edited."""
    night = {gone: None, "i2": f"edited {mark}", mark: f"content of {mark}"}
    shop.extract(night)
    shop.identify({"i2": (7, 7, 7, 7), mark: (6, 6, 6, 6)}, night)
    assert shop.publish()


def rows(lake: Lake) -> dict[str, list[dict]]:
    """Every row of every table, in an order of its own."""
    return {name: sorted(lake.read(table, table.schema.names).to_pylist(), key=repr) for name, table in TABLES.items()}


def versions(lake: Lake) -> dict[str, int | None]:
    return {name: lake.version(table) for name, table in TABLES.items()}


def files(lake: Lake) -> set[str]:
    root = Path(lake.uri)
    return {str(path.relative_to(root)) for path in root.glob("*/**/*") if path.is_file()} - set(records(root))


def records(root: Path) -> Iterator[str]:
    yield from (str(path.relative_to(root)) for path in root.glob("runs/*/*.json"))


def swept(config: Config, hours: int, **settings: int | bool) -> list[Leftover]:
    with Run("vacuum", config) as run:
        return vacuum(run, hours, **settings)


def compacted(config: Config) -> None:
    with Run("compact", config) as run:
        compact(run)


def plant(lake: Lake, age: float, mark: str) -> set[str]:
    """What killed jobs leave, of an age in seconds; the names."""
    names = {
        f"items/staged-{mark}/part-0.parquet",
        f"items/staged-{mark}/.part-0.parquet.crc",
        f"items/staged-{mark}/_temporary/0/task/part-1.parquet",
        f"items/_delta_log/{mark}.tmp",
        f"semantic_ids/staged-{mark}/tokenizer={A}/{mark}.parquet",
        f"released_ids/staged-{mark}/part-0.parquet",
        f"plans/{mark}/encode/chunk=0/part-0.parquet",
        f"runs/{mark}/encode.json.part",
        f"checkpoints/tokenizer-{mark}/checkpoint_1/training.safetensors",
        f"tokenizers/{mark}/model.safetensors",
        f"rankers/{mark}/metrics.json",
    }
    then = time.time() - age
    for name in names:
        path = Path(lake.uri, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    for name in names:
        path = Path(lake.uri, name)
        os.utime(path, (then, then))
        for folder in path.relative_to(lake.uri).parents:
            if mark in str(folder):
                os.utime(Path(lake.uri, folder), (then, then))
    return names


def test_leftovers_are_swept_and_nothing_else(shop: ReleasedShop) -> None:
    swept(shop.config, 0)
    before, whole, at = rows(shop.lake), files(shop.lake), versions(shop.lake)
    old, young = plant(shop.lake, OLD, "lost"), plant(shop.lake, 60, "alive")
    found = swept(shop.config, 24, dry_run=True)
    assert {leftover.path for leftover in found} == old
    assert files(shop.lake) == whole | old | young
    with Run("vacuum", shop.config) as run:
        assert vacuum(run, 24) == found
    assert files(shop.lake) == whole | young
    assert not list(Path(shop.lake.uri).rglob("*lost*"))
    assert (run.counts["files"], run.counts["bytes"]) == (len(old), 5 * len(old))
    assert run.metrics["places"]["items"] == {"files": 4, "bytes": 20}
    with Run("vacuum", shop.config) as run:
        assert vacuum(run, 24) == []
    assert run.counts == {"files": 0, "bytes": 0, "folders": 0}
    assert (rows(shop.lake), versions(shop.lake)) == (before, at)


def test_what_a_killed_writer_left_is_swept_and_what_it_committed_stays(
    shop: ReleasedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(shop.config, 0)
    shop.extract({"i3": None})
    before, whole = rows(shop.lake), files(shop.lake)

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", killed)
        with pytest.raises(SystemExit):
            shop.publish()
    orphans = files(shop.lake) - whole
    assert any(name.startswith("release_changes/staged-") and name.endswith(".parquet") for name in orphans)
    assert swept(shop.config, 1) == []
    assert {leftover.path for leftover in swept(shop.config, 0)} == orphans
    assert files(shop.lake) == whole
    assert rows(shop.lake) == before
    assert shop.publish()
    stored = rows(shop.lake)
    swept(shop.config, 0)
    assert rows(shop.lake) == stored


@pytest.mark.parametrize(
    "delta", ["embedded", pytest.param("native", marks=[pytest.mark.native_delta, pytest.mark.slow])]
)
def test_a_compacted_lake_has_the_same_rows_and_ids_and_every_release(
    spark: SparkSession, tmp_path: Path, delta: str
) -> None:
    shop = two_releases(ReleasedShop(spark, tmp_path, delta))
    lake, config = shop.lake, shop.config
    change(shop, "third", "i3")
    ids = {3: shop.ids()}
    stored = rows(lake)
    compacted(config)
    assert len(lake.files(ITEMS)) == len(lake.files(SEMANTIC_IDS)) == len(lake.files(RELEASED_IDS)) == 1
    assert (rows(lake), shop.ids()) == (stored, ids[3])
    at, release = versions(lake), released(lake)
    swept(config, 0)
    assert not shop.publish()
    assert "stage" not in shop.run.seconds
    compacted(config)
    assert (versions(lake), released(lake)) == (at, release)
    assert (rows(lake), shop.ids()) == (stored, ids[3])

    assert shop.rollback().version == 4  # over the compaction, to files that it replaced
    swept(config, 0)
    assert "third" not in shop.ids()
    assert "second" in shop.ids()
    compacted(config)
    assert shop.rollback().version == 5
    swept(config, 0)
    assert shop.ids().keys() == CODES.keys()
    assert shop.publish(force=True)
    assert shop.ids() == ids[3]
    assert [each.version for each in standing_releases(lake)] == [1, 6]

    stored = rows(lake)
    assert swept(config, 0, keep_releases=1)
    assert (rows(lake), shop.ids()) == (stored, ids[3])
    with pytest.raises(JobError, match="release 1 cannot be read any more"):
        shop.rollback()
    assert shop.ids() == ids[3]


@pytest.mark.slow
def test_the_commands_say_what_they_did(shop: ReleasedShop, tmp_path: Path) -> None:
    file = tmp_path / "hisam.yaml"
    file.write_text(yaml.safe_dump(shop.config.model_dump(mode="json", include={"lake", "catalog"}, exclude_none=True)))

    def hisam(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "-c", str(file)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    plant(shop.lake, OLD, "lost")
    assert "items/_delta_log/lost.tmp" in hisam("vacuum", "--dry-run")
    assert "semantic_ids: 2 files became 1" in hisam("compact")
    said = hisam("vacuum")
    assert "deleted of" in said
    assert "vacuum: done in" in said
    assert "files 11, bytes 55" in said
    assert "nothing" in hisam("vacuum")
    with pytest.raises(ConfigError, match="delete under readers"):
        hisam("vacuum", "--older-than-hours", "0")

    assert "released tokenizer" in hisam("rollback")
    assert "held: release 2 was rolled back from" in hisam("publish", "--tokenizer", A)
    assert "as release 4" in hisam("publish", "--tokenizer", A, "--force")
    assert "nothing is new" in hisam("publish", "--tokenizer", A)
    assert str(tmp_path / "out") in hisam("export", "--to", str(tmp_path / "out"), "--format", "tokens")
    assert (tmp_path / "out" / "vocabulary.json").exists()

"""Readers of a release: by each engine, as the pages say, and after months of commits and foreign upkeep."""

import os
import re
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import SparkSession
from released_shop import CODES, SHOP, ReleasedShop

from pipeline import Lake
from pipeline.errors import JobError
from schemas.tables import ITEMS, RELEASED_IDS, RELEASES

pytestmark = pytest.mark.spark

AGE = 40 * 24 * 3600  # seconds
TIMES = re.compile(r'("(?:timestamp|deletionTimestamp|modificationTime)":)(\d+)')


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_every_engine_reads_the_same_release_and_stays_at_it(open_shop: ReleasedShop, spark: SparkSession) -> None:
    ids = Lake.open(open_shop.config.lake).released_ids()
    expected = open_shop.ids()
    open_shop.extract({"i0": None})
    assert open_shop.publish()
    assert {row["item_id"]: row["sid"] for row in ids.to_table().to_pylist()} == expected
    assert ids.count_rows() == 20
    assert {row["item_id"]: row["sid"] for row in ids.spark(spark).collect()} == expected
    assert {row["item_id"]: row["sid"] for row in ids.ray().take_all()} == expected
    newest = Lake.open(open_shop.config.lake).released_ids()
    assert newest.count_rows() == newest.spark(spark).count() == newest.ray().count() == 19


def test_readers_make_no_lake_and_say_that_nothing_is_released(shop: ReleasedShop, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="nothing is released"):
        shop.lake.released_ids()
    with pytest.raises(JobError, match="there is no lake"):
        Lake.open(str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


def test_the_snippet_that_reads_ids(
    open_shop: ReleasedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = f"lake: {open_shop.config.lake}\ncatalog: {{source: {{path: x, format: csv}}, id: id, text: '{{t}}'}}\n"
    (tmp_path / "hisam.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    for page in ("README.md", "docs/api.md"):
        text = (Path(__file__).parents[2] / page).read_text()
        code = next(block for block in text.split("```python\n")[1:] if "released_ids()" in block).split("```")[0]
        exec(code, names := {})
        assert names["ids"].count_rows() == 20
    capsys.readouterr()


def test_a_standing_release_outlives_an_aged_log_and_a_foreign_vacuum(open_shop: ReleasedShop) -> None:
    """What a platform does to every Delta table: checkpoints, removal of expired logs, VACUUM of the default age."""
    shop = open_shop
    shop.extract({"i0": None})
    assert shop.publish()  # what a rollback must reach is the first release, of which no file is in the newest version
    first, second = dict(shop.ids(), i0="s0-0.t0.i0"), shop.ids()
    for night in range(30):
        shop.extract({"i1": SHOP["i1"], f"new {night}": None})
    for log in Path(shop.lake.uri).glob("*/_delta_log/*.json"):
        log.write_text(TIMES.sub(lambda time: f"{time[1]}{int(time[2]) - 1000 * AGE}", log.read_text()))
    for table in (ITEMS, RELEASED_IDS, RELEASES):
        DeltaTable(shop.lake.table_uri(table)).create_checkpoint()
    then = time.time() - AGE
    for path in Path(shop.lake.uri).glob("*/**/*"):
        os.utime(path, (then, then))
    for table in (ITEMS, RELEASED_IDS, RELEASES):
        delta = DeltaTable(shop.lake.table_uri(table))
        delta.cleanup_metadata()
        assert delta.vacuum(dry_run=False) == []
        with pytest.raises(DeltaError, match="retention"):
            delta.vacuum(retention_hours=168, dry_run=False)
        assert delta.vacuum(retention_hours=24 * 91, dry_run=False) == []
    assert shop.ids() == second
    assert shop.rollback().version == 3
    assert shop.ids() == first
    assert first.keys() == CODES.keys()

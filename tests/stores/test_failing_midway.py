"""A store that fails in the middle of a job: one line with the cause, nothing half done, and another run is whole."""

import json
import re
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest
import yaml
from compare import Row, lake_contents
from faulty_store import FaultyStore
from jars import jars_for
from pyarrow import fs

from pipeline.demo.generator import generate
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, VECTORS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow, pytest.mark.spark_on_s3, pytest.mark.timeout(900)]

# The first write of a table, and every request that follows it.
FAULTS = {
    "the bucket is gone": (404, r"(?i)no_?such_?bucket|404"),
    "the keys hold no more": (403, r"(?i)access_?denied|403"),
    "the store is full": (507, r"507.*: make room"),
    "the store is overrun": (503, r"(?i)slow_?down|503"),
}


class Shop:
    """A small catalogue whose lakes lie in a store."""

    def __init__(self, folder: Path) -> None:
        generate(folder, items=120, users=10, seed=0)
        self._file = folder / "config.yaml"
        settings = yaml.safe_load(self._file.read_text())
        conf = {"spark.jars": ",".join(jars_for("spark_on_s3")), "spark.driver.memory": "1g"}
        settings["spark"] = {"master": "local[2]", "conf": conf | {"spark.sql.shuffle.partitions": 2}}
        settings["encoders"] = {"commit_rows": 100, "workers": 1}
        settings["lock"] = {"wait_seconds": 90}  # a store that failed could not be told that the lease is free
        self._file.write_text(yaml.safe_dump(settings))

    def run(self, job: str, lake: str, options: dict[str, str], *arguments: str) -> tuple[int, str]:
        """The exit status and the output of a job on a lake, through the store that the options name."""
        line = [sys.executable, "-m", f"jobs.{job}", "-c", str(self._file), *arguments]
        line += ["--set", f"lake={lake}", "--set", f"storage_options={json.dumps(options)}"]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.fixture(scope="module")
def planned(shop: Shop, s3: dict[str, str]) -> tuple[str, str]:
    """A lake whose items wait for ``encode``, and the run id of that plan."""
    lake = new_lake()
    for job, arguments in (("extract", []), ("encode", ["--plan-only"])):
        status, said = shop.run(job, lake, s3, *arguments)
        assert status == 0, said
    return lake, re.findall(r"--planned (\S+)", said)[0]


@pytest.fixture(scope="module")
def encoded(shop: Shop, planned: tuple[str, str], s3: dict[str, str]) -> Counter[Row]:
    """What that lake holds when nothing disturbs the plan."""
    lake = copied(planned[0], s3)
    status, said = shop.run("encode", lake, s3, "--planned", planned[1])
    assert status == 0, said
    return lake_contents(Lake.open(lake, s3))


def new_lake() -> str:
    return f"s3://lakes/{uuid.uuid4().hex}"


def copied(lake: str, s3: dict[str, str]) -> str:
    to, store = new_lake(), Lake(lake, s3).filesystem
    fs.copy_files(
        lake.removeprefix("s3://"), to.removeprefix("s3://"), source_filesystem=store, destination_filesystem=store
    )
    return to


def told(said: str) -> str:
    """The one line that a job that failed ends with."""
    assert "Traceback" not in said, said
    [line] = [line for line in said.splitlines() if line.startswith("hisam: ")]
    assert line == said.splitlines()[-1], said
    return line


@pytest.mark.parametrize("fault", FAULTS)
def test_ray_writes_to_a_store_that_fails(
    fault: str, shop: Shop, planned: tuple[str, str], encoded: Counter[Row], s3: dict[str, str], store: FaultyStore
) -> None:
    lake, run_id = copied(planned[0], s3), planned[1]
    status, cause = FAULTS[fault]
    store.fails(status, "PUT|POST", r"/vectors/.*\.parquet", wholly=True)
    ended, said = shop.run("encode", lake, store.options, "--planned", run_id)
    assert store.struck(), said
    store.works()
    assert ended == 1, said
    assert re.search(cause, told(said)), said
    assert not Lake.open(lake, s3).exists(VECTORS)
    ended, said = shop.run("encode", lake, store.options, "--planned", run_id)
    assert ended == 0, said
    assert lake_contents(Lake.open(lake, s3)) == encoded


@pytest.mark.parametrize("fault", FAULTS)
def test_spark_writes_to_a_store_that_fails(
    fault: str, shop: Shop, planned: tuple[str, str], s3: dict[str, str], store: FaultyStore
) -> None:
    lake = new_lake()
    status, cause = FAULTS[fault]
    store.fails(status, "PUT|POST", r"/items/.*\.parquet", wholly=True)
    ended, said = shop.run("extract", lake, store.options)
    assert store.struck(), said
    store.works()
    assert ended == 1, said
    assert re.search(cause, told(said)), said
    assert not Lake.open(lake, s3).exists(ITEMS)
    ended, said = shop.run("extract", lake, store.options)
    assert ended == 0, said
    assert lake_contents(Lake.open(lake, s3)) == lake_contents(Lake.open(planned[0], s3))


def test_a_slow_store_is_waited_for(
    shop: Shop, planned: tuple[str, str], encoded: Counter[Row], s3: dict[str, str], store: FaultyStore
) -> None:
    lake, run_id = copied(planned[0], s3), planned[1]
    store.fails("slow", "PUT|POST", "/vectors/")
    ended, said = shop.run("encode", lake, store.options, "--planned", run_id)
    assert ended == 0, said
    store.works()
    assert lake_contents(Lake.open(lake, s3)) == encoded

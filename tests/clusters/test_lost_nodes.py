"""A node of three is lost in the middle of a job, which goes on with the others, or says in time that it cannot.

``pytest tests/clusters/test_lost_nodes.py -m slow -s`` prints the rows of the table in docs/reliability.md.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pytest
from compare import contents
from halves import planned
from kills import ENCODER, READER, TOKENIZER, Fault, at
from pyspark.sql import SparkSession
from ray_nodes import RayNodes
from shops import Shops, arguments, config_of

from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, SEQUENCES

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = [f"encoders.{name}" for name in ("text.batch_size=4", "image.batch_size=4", "workers=8")]
LOST = {
    "encode: encoding": ("encode", at(ENCODER, victim="node")),
    "encode: reading": ("encode", at(READER, nth=2, victim="node")),
    "tokenize: tokenising": ("tokenize", at(TOKENIZER, victim="node")),
    "train-tokenizer: reading": (
        "train-tokenizer",
        at("pipeline.on_ray.training.vector_files:Vectors.load", victim="node"),
    ),
    "train-ranker: a checkpoint": ("train-ranker", at("pipeline.on_ray.training.ranker_workers:_leave", victim="node")),
}


@contextmanager
def cluster(folder: Path, cores: list[int], fault: Fault | None = None) -> Iterator[RayNodes]:
    nodes = RayNodes(folder, cores, fault=fault)
    try:
        yield nodes
    finally:
        nodes.stop()


def on_cluster(nodes: RayNodes, line: list[str], settings: list[str], seconds: int = 400) -> tuple[int, str]:
    """The exit status and the output of a job that is run where there is no Spark."""
    options = [part for setting in settings for part in ("--set", setting)]
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address, "JAVA_HOME": "/nowhere"}
    done = subprocess.run(
        [*line, *options], env=environment, timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def tell(lost: str, nodes: RayNodes, did: str) -> None:
    """A row of the table: what was lost, what the job did, and how long after the loss it had done it."""
    seconds = time.time() - nodes.struck.stat().st_mtime
    sys.stdout.write(f"\n| `{lost.replace(':', '`:', 1)} | {did} | {seconds:.0f} |\n")


@pytest.mark.parametrize("lost", LOST)
def test_a_job_that_loses_a_node_goes_on_with_the_others(
    lost: str, shops: Shops, spark: SparkSession, tmp_path: Path
) -> None:
    job, fault = LOST[lost]
    folder, expected = shutil.copytree(shops.before(job), tmp_path / "shop"), contents(shops.after(job))
    line = planned(job, folder)
    with cluster(tmp_path / "nodes", [2, 2], fault) as nodes:
        status, said = on_cluster(nodes, line, SMALL if job == "encode" else [])
        assert nodes.struck.exists(), said
        tell(lost, nodes, "went on")
    assert status == 0, said
    assert contents(folder) == expected


def test_scores_are_whole_though_a_node_was_lost(shops: Shops, tmp_path: Path) -> None:
    folder = shutil.copytree(shops.after("train-ranker"), tmp_path / "shop")
    lake = Lake(config_of(folder).lake)
    users = lake.read(SEQUENCES, ["user_id"])["user_id"].unique()
    csv.write_csv(pa.table({"user_id": users}), tmp_path / "users.csv")
    csv.write_csv(pa.table({"item_id": lake.read(ITEMS, ["item_id"])["item_id"].unique()}), tmp_path / "items.csv")
    line = [*arguments("score", folder), "--users", str(tmp_path / "users.csv"), "--to", str(tmp_path / "best")]
    line += ["--candidates", str(tmp_path / "items.csv"), "--top", "5"]
    with cluster(tmp_path / "nodes", [2, 2], at("pipeline.on_ray.score:Scorer.__call__", victim="node")) as nodes:
        status, said = on_cluster(nodes, line, [])
        assert nodes.struck.exists(), said
        tell("score: scoring", nodes, "went on")
    assert status == 0, said
    rows = ds.dataset(tmp_path / "best" / "top").to_table()
    assert Counter(rows["user_id"].to_pylist()) == dict.fromkeys(users.to_pylist(), 5)


def test_a_job_that_no_node_is_left_for_says_what_it_waits_for(
    shops: Shops, spark: SparkSession, tmp_path: Path
) -> None:
    folder, expected = shutil.copytree(shops.before("encode"), tmp_path / "shop"), contents(shops.after("encode"))
    line = planned("encode", folder)
    with cluster(tmp_path / "nodes", [2], at(ENCODER, victim="node")) as nodes:
        status, said = on_cluster(nodes, line, [*SMALL, "ray.stall_seconds=30"])
        tell("encode: the only node", nodes, "failed, exit status 1")
    assert status == 1, said
    told = said.splitlines()[-1]
    assert told.startswith("hisam: Ray made no progress for 30 s (ray.stall_seconds), waiting for ")
    assert "EncodeInputs" in told
    assert "1 of 2 nodes are left" in told
    with cluster(tmp_path / "others", [2]) as nodes:
        status, said = on_cluster(nodes, line, SMALL)
    assert status == 0, said
    assert contents(folder) == expected

"""Every job of Ray's, submitted to a cluster with ``ray job submit``: the tables of one process."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pytest
from compare import contents
from halves import PLANS, planned
from pyspark.sql import SparkSession
from ray_nodes import RAY, RayNodes
from shops import Jobs, Shops, arguments, config_of, make_shop

from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, SEMANTIC_IDS, SEQUENCES

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

ORDER = ["shop", "extract", "encode", "train-tokenizer", "tokenize", "publish", "sequences", "train-ranker"]
NO_JAVA = '{"env_vars": {"JAVA_HOME": "/nowhere"}}'


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    cluster = RayNodes(tmp_path_factory.mktemp("nodes") / "cluster", [2, 1], dashboard=True)
    yield cluster
    cluster.stop()


def submit(nodes: RayNodes, line: list[str], **variables: str) -> tuple[int, str]:
    """The exit status and the output of ``ray job submit``, which waits for the job."""
    command = [*RAY, "job", "submit", "--address", nodes.dashboard, "--runtime-env-json", NO_JAVA, "--", *line]
    environment = nodes.environment | variables
    done = subprocess.run(
        command, env=environment, timeout=400, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_submitted_jobs_leave_the_tables_of_one_process(
    nodes: RayNodes, shops: Shops, spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    make_shop(folder)
    for job in ORDER[1:]:
        if job in PLANS or job == "train-ranker":
            status, said = submit(nodes, planned(job, folder))
            assert status == 0, said
            assert f"{job}: done in" in said
        else:
            Jobs(spark)(job, folder)
    assert contents(folder) == contents(shops.after("train-ranker"))

    lake = Lake(config_of(folder).lake)
    users = lake.read(SEQUENCES, ["user_id"])["user_id"].unique()
    csv.write_csv(pa.table({"user_id": users}), tmp_path / "users.csv")
    csv.write_csv(pa.table({"item_id": lake.read(ITEMS, ["item_id"])["item_id"].unique()}), tmp_path / "items.csv")
    line = [*arguments("score", folder), "--users", str(tmp_path / "users.csv"), "--to", str(tmp_path / "best")]
    status, said = submit(nodes, [*line, "--candidates", str(tmp_path / "items.csv"), "--top", "5"])
    assert status == 0, said
    assert ds.dataset(tmp_path / "best" / "top").count_rows() == 5 * len(users)
    status, said = submit(nodes, arguments("evaluate", folder))
    assert status == 0, said
    assert "evaluate: done in" in said

    whole = contents(folder)  # of which the IDs go, and come back
    shutil.rmtree(folder / "lake" / SEMANTIC_IDS.name)
    status, said = submit(nodes, planned("backfill", folder))
    assert status == 0, said
    assert contents(folder) == whole


def test_a_submitted_job_that_fails_says_why_with_its_exit_status(nodes: RayNodes, tmp_path: Path) -> None:
    make_shop(tmp_path / "shop")
    status, said = submit(nodes, [*arguments("encode", tmp_path / "shop"), "--set", "encoders.workers=none"])
    assert status == 1, said
    assert "encoders.workers" in said
    assert "exit code 2" in said


def test_a_submission_without_the_token_is_refused(nodes: RayNodes) -> None:
    status, said = submit(nodes, ["true"], RAY_AUTH_MODE="disabled")
    assert status == 1, said
    assert "RAY_AUTH_MODE is currently 'disabled'" in said

"""Jobs of one night share a Ray cluster; a half of a job takes no option of the other half."""

import subprocess
import sys
from pathlib import Path

import pytest
from handmade import config_of

from jobs.encode import run_encode
from jobs.planning import Halves
from pipeline.config.models import Config
from pipeline.errors import ConfigError

JOBS = """
import sys
import ray
from jobs.planning import one_cluster, planned_run
from pipeline.config.models import Config
from pipeline.lake.plans import Plan, save_plan
from pipeline.on_spark.session import spark_session

config = Config.model_validate_json(sys.stdin.read())

def does(job, rows):
    plan = lambda spark, run: save_plan(run.lake, Plan(job, run.run_id, rows, 1, {}))
    with planned_run(job, config, plan) as (run, plan):
        here = ray.get_runtime_context().get_job_id() if plan else None
    return here, run.seconds.get("ray_start") is not None, ray.is_initialized()

with spark_session(config.spark, 'planning'), one_cluster():
    assert does("encode", 0) == (None, False, False)
    first, *rest = does("encode", 1)
    assert rest == [True, True], rest
    assert does("tokenize", 1) == (first, True, True)
assert not ray.is_initialized()
"""


@pytest.mark.parametrize("run_id", ["", "latest", "../../elsewhere", "20260101T020000000000-1a2b/.."])
def test_what_is_no_run_id_names_no_plan(run_id: str) -> None:
    with pytest.raises(ConfigError, match=f"--planned: {run_id!r} is no run id; give the one that --plan-only printed"):
        Halves(planned=run_id)


@pytest.mark.ray
@pytest.mark.spark
@pytest.mark.slow
def test_jobs_within_one_block_share_the_cluster_that_the_first_with_work_starts(tmp_path: Path) -> None:
    source = {"path": "items.csv", "format": "csv"}
    catalog = {"source": source, "id": "id", "text": "{title}"}
    config = Config.model_validate({"lake": str(tmp_path / "lake"), "catalog": catalog})
    done = subprocess.run(
        [sys.executable, "-c", JOBS], input=config.model_dump_json(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_failed_before_is_tried_again_by_a_plan_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--retry-failed .* give it with --plan-only"):
        run_encode(config_of(tmp_path), halves=Halves(planned="20260101T000000000000-1a2b"), retry_failed=True)

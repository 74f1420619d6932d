"""Airflow reads the DAG file and runs the halves of a night, with a stand-in for ``hisam`` that fails as it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployed import DOCKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HISAM = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
*--plan-only) echo "$1: 12 rows in 1 chunks; do them with: hisam $1 --planned 20260101T020000-1a2b"; echo late >&2 ;;
"publish"*) exit "$PUBLISH" ;;
"extract"*) [ -e "$CALLS.failed" ] || { touch "$CALLS.failed"; exit 1; } ;;
esac
"""

RUN = """
import json, sys
from datetime import timedelta
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
for dag in bag.dags.values():
    for task in dag.tasks:
        assert task.retries == 2
        task.retry_delay = timedelta(0)
run = bag.dags["hisam_nightly_in_halves"].test()
found = {task.task_id: (task.state, task.try_number) for task in run.get_task_instances()}
print(json.dumps({"dags": sorted(bag.dags), "state": run.state, "tasks": found}))
"""

HALVES = ["encode --plan-only", "encode --planned 20260101T020000-1a2b"]
HALVES += ["tokenize --plan-only", "tokenize --planned 20260101T020000-1a2b"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A Python that has Airflow, which would not go well with this project's own packages, and its environment."""
    folder = tmp_path_factory.mktemp("airflow")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv/bin"
    packages = ["apache-airflow>=3.3,<4", "apache-airflow-providers-standard"]
    subprocess.run([programs / "pip", "install", "--quiet", *packages], check=True)
    (programs / "hisam").write_text(HISAM)
    (programs / "hisam").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "AIRFLOW_HOME": str(folder / "home")}
    environment |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__CORE__DAGS_FOLDER": str(DOCKER / "schedules")}
    environment |= {"HISAM_CONFIG": "hisam.yaml"}
    subprocess.run([programs / "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    return programs / "python", environment


@pytest.mark.parametrize(("status", "ended"), [(0, "success"), (3, "failed")])
def test_a_night_in_halves(airflow: tuple[Path, dict[str, str]], tmp_path: Path, status: int, ended: str) -> None:
    python, environment = airflow
    calls = tmp_path / "calls"
    environment = environment | {"CALLS": str(calls), "PUBLISH": str(status)}
    command = [python, "-c", RUN, DOCKER / "schedules"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["dags"] == ["hisam_nightly", "hisam_nightly_in_halves", "hisam_upkeep"]
    assert told["state"] == ended
    assert told["tasks"]["publish"] == [ended, 1], "a refused gate is not tried again"
    made = [line.replace(" -c hisam.yaml", "") for line in calls.read_text().splitlines()]
    assert made == ["extract", "extract", *HALVES, "publish", "report --nightly"], "what failed once is tried again"

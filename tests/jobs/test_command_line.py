"""The command line as a user meets it: exit statuses, messages, a quick start."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from jobs.cli import app


def test_commands_end_with_the_right_exit_status(tmp_path: Path, shop: Path) -> None:
    def hisam(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)

    config = str(shop / "config.yaml")
    for job, arguments, code, said in (
        ("extract", [], 2, "hisam: there is no configuration file hisam.yaml: name one with --config\n"),
        ("publish", ["-c", config], 1, "run train-tokenizer first\n"),
        ("publish", ["-c", config, "--set", "gates.nope=1"], 2, "gates.nope: unknown key"),
        ("train-ranker", ["-c", config, "--arch", "deep"], 2, "'deep' is not one of"),
        ("vacuum", ["-c", config], 0, ""),
    ):
        done = hisam(job, *arguments)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_job_that_is_terminated_says_so_as_one_that_is_interrupted() -> None:
    wait = "def wait():\n    print('here', flush=True)\n    time.sleep(60)\n"
    code = f"import time, typer\nfrom jobs.entry import start\n{wait}start(lambda: typer.run(wait))"
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "here\n"
    job.terminate()
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert said == "hisam: interrupted; what was committed stays, the next run goes on from there\n"


@pytest.mark.slow
@pytest.mark.spark
def test_one_that_is_terminated_while_spark_works_says_no_more(shop: Path) -> None:
    command = [sys.executable, "-m", "jobs", "extract", "-c", str(shop / "config.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        while not has_child(job.pid, "pyspark.daemon"):
            assert job.poll() is None
            time.sleep(0.05)
        job.terminate()
        _, said = job.communicate(timeout=120)
    assert job.returncode == 130
    lines = [line for line in said.splitlines() if not line.startswith("extract: ")]  # of its progress, if it is slow
    assert lines == ["hisam: interrupted; what was committed stays, the next run goes on from there"], said
    (record,) = (shop / "lake" / "runs").glob("*/extract.json")
    assert json.loads(record.read_text())["status"] == "failed"


def has_child(pid: int, word: str) -> bool:
    """Whether a process has one below it with that word on its command line; those that just ended do not count."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if word in child.cmdline():
                return True
    return False


def test_the_command_line_starts_without_an_engine() -> None:
    code = (
        "import sys, jobs.cli; print(sorted({'torch', 'ray', 'pyspark', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("init", ["The catalogue: a file or folder", "--interactions", "--to", "write a commented configuration file"]),
        ("check", ["--config", "--rows", "first rows of the catalogue", "write nothing"]),
    ],
)
def test_the_first_commands_explain_themselves(command: str, said: list[str]) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert all(word in shown.output for word in said)

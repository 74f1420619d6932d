"""What Dockerfiles, compose, manifests and schedules run is there: commands, options, files."""

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import typer
from deployed import COMPOSE, DOCKER, DOCKERFILES, MANIFESTS, ROOT, commands, copied, manifests, shell_texts, strings

from jobs.cli import app
from pipeline.config.file import load_config
from pipeline.lake.plans import Plan

CLI = typer.main.get_command(app)
RUN_BY = [*DOCKERFILES, COMPOSE, *MANIFESTS, DOCKER / "schedules/crontab", DOCKER / "README.md"]


def parse(arguments: list[str]) -> str:
    """The command that the real command line takes them for; it refuses what it does not know, and runs nothing."""
    if arguments != ["--help"]:
        CLI.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    return arguments[0]


@pytest.mark.parametrize("file", RUN_BY, ids=lambda file: file.name)
def test_commands_and_options_exist(file: Path) -> None:
    found = [parse(arguments) for text in shell_texts(file) for arguments in commands(text)]
    assert found or file.name == "config.yaml"


def test_what_is_wrong_is_refused() -> None:
    (arguments,) = commands('run=$(hisam encode -c "$X" --plan-onyl | tee plan)')
    with pytest.raises(Exception, match="No such option: --plan-onyl"):
        parse(arguments)
    (arguments,) = commands("cd /work; hisam backfill --plan-only")
    with pytest.raises(Exception, match="Missing parameter: tokenizer"):
        parse(arguments)


class Operator:
    """As much of an operator of Airflow as a DAG file touches."""

    made: ClassVar[list["Operator"]] = []

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.made.append(self)

    def __rshift__(self, other: "Operator") -> "Operator":
        return other


class Dag:
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        assert settings["max_active_runs"] == 1

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def test_the_dag_runs_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow itself reads and runs the file in test_airflow.py."""
    contents = {
        "airflow.sdk": {"DAG": Dag},
        "airflow.sdk.exceptions": {"AirflowFailException": RuntimeError},
        "airflow.providers.standard.operators.bash": {"BashOperator": Operator},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Operator, "made", [])
    runpy.run_path(str(DOCKER / "schedules/hisam_dag.py"))
    found = [parse(words) for task in Operator.made for words in commands(task.settings["bash_command"])]
    assert sorted(found) == sorted(
        ["nightly", "extract", "encode", "encode", "tokenize", "tokenize", "publish", "report", "compact", "vacuum"]
    )


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_is_copied_exists_and_is_let_into_the_build(file: Path) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied(file):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source


def test_the_run_id_is_found_where_a_planning_job_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.planning import _next

    assert _next("encode", Plan("encode", "20260101T020000-1a2b", 12, 1)).endswith(" --planned 20260101T020000-1a2b")
    assert "--planned" not in _next("encode", Plan("encode", "20260101T020000-1a2b", 0, 0))
    halves = [text for file in (COMPOSE, *MANIFESTS) for text in shell_texts(file) if "sed -n" in text]
    assert len(halves) >= 7
    assert all("s/.*--planned //p" in text for text in halves)


def test_the_configuration_of_the_cluster_is_valid(tmp_path: Path) -> None:
    (config,) = (m for file in MANIFESTS for m in manifests(file) if m["kind"] == "ConfigMap")
    (tmp_path / "hisam.yaml").write_text(config["data"]["hisam.yaml"])
    assert load_config(tmp_path / "hisam.yaml").lock.wait_seconds > 60


def test_the_readme_names_files_that_are_there() -> None:
    readme = (DOCKER / "README.md").read_text()
    for file in DOCKER.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts and file.name != "README.md":
            assert f"`{file.relative_to(DOCKER)}`" in readme, file
    named = [text for m in MANIFESTS for document in manifests(m) for text in strings(document) if "local://" in text]
    assert named == ["local:///opt/hisam/hisam.py"]

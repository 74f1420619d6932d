"""The tutorial, followed command by command by a new user, and then the notebook and the examples on its lake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import NOTEBOOK, ROOT, fenced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

CHANGING = re.compile(r"\d{8}T\d+-\w+|\b[0-9a-f]{16}\b|[-−]?\d+\.\d+|\d+(?= s\b)|\d{4}-\d\d-\d\d.\d\d:\d\d(:\d\d)?")
BOXES = re.compile(r"[\s━─┃│┏┳┓┗┻┛┡╇┩┢╈┪└┴┘├┼┤╭╮╰╯]+")


def steady(line: str) -> str:
    """A line without what differs from run to run (names of runs, fingerprints, seconds, figures) and without boxes."""
    return CHANGING.sub("#", BOXES.sub(" ", line)).strip()


def fits(said: str, shown: str) -> bool:
    """Whether a printed line is the one that is shown, or begins with it where that ends in an ellipsis."""
    return said.startswith(steady(shown[:-1])) if shown.endswith("…") else said == steady(shown)


def steps(page: str) -> list[tuple[str, list[str]]]:
    """The commands of the page's console blocks, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in fenced(ROOT / page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif steady(line) not in ("", "…"):
                found[-1][1].append(line)
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tutorial ends; every command has printed what the page shows, in order."""
    folder = tmp_path_factory.mktemp("tutorial")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, expected in steps("docs/tutorial.md"):
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=os.environ | {"PATH": path, "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        printed = iter([steady(line) for line in done.stdout.splitlines()])
        for line in expected:
            assert any(fits(said, line) for said in printed), f"{command}\ndoes not print: {line}\n{done.stdout}"
    return folder


def test_the_notebook_runs_on_the_tutorials_lake(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("HISAM_CONFIG", str(shop / "hisam.yaml"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    last = "".join(output.text for output in notebook.cells[-1].outputs)
    assert re.search(r"the new item is at place \d+ of \d+", last)


def test_the_examples_that_want_a_lake_run_on_it(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    examples = [code for code in fenced(ROOT / "docs/api.md", "python") if "load_config(" in code]
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "docs/api.md", "exec"), names := {})
    assert names["codes"].shape == (1, 7)
    assert names["codes"][0, 5:].tolist() == [32, 32]

"""The tutorial, followed command by command by a new user: every command prints, in order, what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, fenced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

CHANGING = re.compile(
    r"\d{8}T\d+-\w+|(-\d+)+\.t\S+|\b[0-9a-f]{16}\b|[-−]?\d+\.\d+|\d+(?= s\b)|\d{4}-\d\d-\d\d.\d\d:\d\d(:\d\d)?"
)
BOXES = re.compile(r"[\s━─┃│┏┳┓┗┻┛┡╇┩┢╈┪└┴┘├┼┤╭╮╰╯]+")


def steady(line: str) -> str:
    """A line without boxes and without what differs from run to run (names of runs, fingerprints, seconds, figures) or
    from processor to processor (of an ID, what comes after its first code)."""
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


def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    folder, path = tmp_path, f"{Path(sys.executable).parent}:{os.environ['PATH']}"
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

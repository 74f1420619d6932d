"""Whatever the pages name is there: links, commands, options, keys, files, modules, targets of make."""

import ast
import json
import re
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import typer
import yaml
from deployed import commands
from pages import NOTEBOOK, ROOT, anchors, code_words, fenced, is_key, links, shell_lines, text_of, unknown_keys
from pages import PAGES as ALL

from docs.reference import PAGES, section_paths, written
from jobs.cli import app
from schemas.tables import TABLES

CLI = typer.main.get_command(app)
OF_ALL = {option for parameter in CLI.params for option in parameter.opts}
OPTIONS = {name: {o for p in command.params for o in p.opts} for name, command in CLI.commands.items()}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOLDERS = ("docs", "docker", "tests", "pipeline", "tokenizer", "ranker", "schemas", "jobs", "benchmarks")
OTHERS = {"--jars", "--archives", "--conf", "--build-arg", "--data"}  # of spark-submit, docker, benchmarks
SPARKS_OWN = re.compile(r"spark\.(jars|sql|driver|executor|task|speculation|pyspark|hadoop|delta\.logStore)\b")
KEYS = {name for model in section_paths() for name in model.model_fields}

each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_what_is_made_from_the_code_is_up_to_date(page: Path) -> None:
    assert written(page.read_text()) == page.read_text(), "run: make reference"


def test_every_key_and_every_column_says_what_it_is() -> None:
    fields = {(model, name): field for model in section_paths() for name, field in model.model_fields.items()}
    rows = [line for line in (PAGES / "configuration.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(fields)
    assert not [row for row in rows if row.endswith("|  |")]
    assert all(column.meaning for table in TABLES.values() for column in table.columns)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@each_page
def test_commands_in_blocks_are_taken_by_the_command_line(page: Path) -> None:
    for line in shell_lines(page):
        for arguments in commands(line):
            taken_by_the_command_line(arguments)
        assert set(re.findall(r"\bmake ([\w-]+)", line)) <= TARGETS, line
        for module in re.findall(r"python3? -m ([\w.]+)", line):
            assert find_spec(module), line


def taken_by_the_command_line(arguments: list[str]) -> None:
    """Parse a command and run nothing; what is wrong is raised."""
    if arguments == ["--help"]:
        return
    while arguments[0] in OF_ALL:
        arguments = arguments[2:]
    CLI.commands[arguments[0]].make_context(arguments[0], arguments[1:])


@each_page
def test_code_in_sentences_names_what_is_there(page: Path) -> None:
    wrong = [word for word in code_words(page) if not names_what_is_there(word)]
    assert not wrong


def names_what_is_there(code: str) -> bool:
    """Whether every command, option, key, file and target that a piece of code in a sentence names is there."""
    words = code.removeprefix("hisam ").split()
    while code.startswith("hisam ") and words[0] in OF_ALL and words[2:]:  # an option of all commands, and its value
        words = words[2:]
    if code.startswith("hisam ") and words[0].islower() and words[0] not in OPTIONS:
        return False
    if words[0] in OPTIONS or words[0].startswith("--"):
        known = OPTIONS.get(words[0], set().union(*OPTIONS.values(), OF_ALL, OTHERS))
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        keys = [after.split("=")[0] for option, after in pairwise(words) if option == "--set"]
        return named <= known and all(map(is_key_or_spared, keys))
    if words[0] == "make":
        return words[1] in TARGETS
    if code.startswith("python -m "):
        return words[2].endswith("NAME") or find_spec(words[2]) is not None
    if words[0].split("/")[0] in FOLDERS and re.fullmatch(r"[\w./*-]+/[\w./*-]*", words[0]):
        return any(ROOT.glob(words[0]))
    if Path(code).suffix in (".csv", ".json", ".yaml", ".parquet"):
        return True
    first = code.split(".")[0]
    if first in FOLDERS and re.fullmatch(r"\w+(\.\w+)+", code):
        return is_in_a_module(code) or is_key_or_spared(code)
    if first in TABLES and re.fullmatch(r"\w+\.[a-z_]+", code):
        return code.split(".")[1] in TABLES[first].schema.names
    if first in KEYS and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code):
        return is_key_or_spared(code)
    if re.match(r"[a-z_]+: \S", code) and code.split(":")[0] in KEYS and "`" not in code:
        return not yaml_faults(code.replace("…", "").rstrip(", "))
    return True


def is_key_or_spared(path: str) -> bool:
    return path.endswith(".…") or is_key(path) or SPARKS_OWN.match(path) is not None


def is_in_a_module(path: str) -> bool:
    """A module of ours, what one defines, or what a package offers, by the text alone."""
    steps = path.split(".")
    for at, place in enumerate(accumulate(steps, lambda a, b: f"{a}/{b}"), start=1):
        name, module, package = "".join(steps[at : at + 1]), ROOT / f"{place}.py", ROOT / place / "__init__.py"
        if module.exists():
            return not name or bool(re.search(rf"^(class |def )?{name}\b", module.read_text(), re.MULTILINE))
        if not package.exists():
            return False
        if f'"{name}"' in package.read_text():
            return True
    return True


def yaml_faults(text: str) -> list[str]:
    """Keys of a piece of YAML that the configuration has nowhere, and the piece itself if it is no YAML."""
    text = text + "}" * (text.count("{") - text.count("}"))
    try:
        settings = yaml.safe_load(text if "\n" in text or text.startswith("{") else "{" + text + "}")
    except yaml.YAMLError:
        return [text]
    return unknown_keys(settings, list(section_paths()))


@each_page
def test_settings_in_blocks_are_keys(page: Path) -> None:
    for block in fenced(page, "yaml"):
        assert yaml_faults(block) == [], block


def test_the_notebook_has_no_outputs_and_imports_what_is_there() -> None:
    """Its cells are run by test_notebook.py."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    code = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    imported = [
        f"{node.module}.{name.name}"
        for node in ast.walk(code)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    ours = [path for path in imported if path.split(".")[0] in FOLDERS]
    assert len(ours) >= 8
    assert not [path for path in ours if not is_in_a_module(path)]
    for source in (target for cell in cells for target in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"]))):
        assert (PAGES / source).exists()


def test_what_is_not_there_is_found() -> None:
    for code in (
        "hisam encodes",
        "publish --forse",
        "--plan-onyl",
        "make rain",
        "python -m benchmarks.nothing",
        "tests/test_nothing.py",
        "gates.max_colision_rate",
        "--set tokenizer.codebooksize=3",
        "ranker.hmat.model.HMT",
        "lock: {wait: 90}",
        "items.content",
    ):
        assert not names_what_is_there(code), code


def test_headings_are_met_as_github_spells_them() -> None:
    assert "what-counts-as-unchanged" in anchors(PAGES / "reliability.md")
    assert "pictures-by-url" in anchors(PAGES / "operations.md")
    assert text_of(PAGES / "README.md").startswith("# ")

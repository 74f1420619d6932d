"""The parts of the documentation that are made from the code; ``python -m docs.reference`` writes them anew.

A page holds such a part between ``<!-- made by docs.reference: NAME -->`` and ``<!-- end -->``, and what stands around
it is written by hand. A test compares them, so that no page can say what the code no longer does.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.cli import app
from pipeline.config.encoders import TextEncoder
from pipeline.config.file import sections
from pipeline.config.models import Config, Fetch, Gates
from schemas.reasons import Reason
from schemas.tables import TABLES, Table

PAGES = Path(__file__).parent
PART = re.compile(r"(<!-- made by docs\.reference: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", dict: "mapping", list: "list"}


def written(page: str) -> str:
    """The text of a page with its parts made anew."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", page)


# Configuration


def configuration() -> str:
    """Every section of the configuration with its keys."""
    return "\n\n".join(_section(model, paths) for model, paths in section_paths().items())


def section_paths() -> dict[type[BaseModel], list[str]]:
    """The sections in the order of a file, each with all places where it may stand (``""``: the file itself)."""
    found: dict[type[BaseModel], list[str]] = {}

    def visit(model: type[BaseModel], path: str) -> None:
        found.setdefault(model, []).append(path)
        for name, field in model.model_fields.items():
            for inner in sections(field.annotation).values():
                visit(inner, f"{path}.{name}".lstrip("."))

    visit(Config, "")
    return found


def _section(model: type[BaseModel], paths: Sequence[str]) -> str:
    title = ", ".join(f"`{path}`" for path in paths if path) or "The file"
    kinds = [sections(field.annotation) for field in _fields_at(paths[0])]
    if kinds and len(kinds[0]) > 1:
        title += f": a {next(tag for tag, kind in kinds[0].items() if kind is model)}"
    about = inspect.cleandoc(model.__doc__ or "").split("\n\nRaises:")[0].split("\n\n``docs/")[0]
    return f"### {title}\n\n{_plain(about)}\n\n{keys(model)}"


def keys(model: type[BaseModel]) -> str:
    """The keys of one section."""
    rows = [(f"`{name}`", _default(field), _allowed(field), _said(field)) for name, field in model.model_fields.items()]
    return _table(("key", "default", "allowed", "what it is"), rows)


def _fields_at(path: str) -> Iterator[FieldInfo]:
    *above, name = path.split(".")
    for model, paths in section_paths().items():
        if ".".join(above) in paths and name in model.model_fields:
            yield model.model_fields[name]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if sections(field.annotation):
        return "off" if value is None else ""
    return "" if value is None else f"`{json.dumps(value)}`"


def _allowed(field: FieldInfo) -> str:
    if kinds := sections(field.annotation):
        return "section" if len(kinds) == 1 else "section: " + " or ".join(kinds)
    bounds = [
        f"{sign} {getattr(note, name):,}"
        for note in [*field.metadata, *_notes(field.annotation)]
        for name, sign in SIGNS.items()
        if getattr(note, name, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _notes(annotation: Any) -> list[Any]:
    return [note for inner in get_args(annotation) for note in (*getattr(inner, "__metadata__", ()), *_notes(inner))]


def _kind(annotation: Any) -> str:
    """The type of a value in words."""
    if annotation in WORDS:
        return WORDS[annotation]
    origin, inner = get_origin(annotation), [kind for kind in get_args(annotation) if kind is not NoneType]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return WORDS[dict]
    return _kind(inner[0]) if inner else str(annotation.__name__)


def _said(field: FieldInfo) -> str:
    return field.description or next(
        (_plain(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]) for kind in sections(field.annotation).values()),
        "",
    )


# Tables, quarantine, commands, imports


def tables() -> str:
    """Every table of the lake with its columns."""
    return "\n\n".join(map(_one_table, TABLES.values()))


def _one_table(table: Table) -> str:
    facts = [f"A row is {table.row}.", f"Written by {table.writer}.", f"Key: {_code(table.key)}."]
    facts += [f"Partitioned by {_code(table.partition)}."] if table.partition else []
    facts += [f"`{name}` is one of {_code(values)}." for name, values in table.allowed.items() if name != "reason"]
    rows = [(f"`{c.name}`", _type(c.kind), "yes" if c.null else "", c.meaning) for c in table.columns]
    return f"### `{table.name}`\n\n{' '.join(facts)}\n\n{_table(('column', 'type', 'null', 'what it is'), rows)}"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return f"timestamp in µs, {kind.tz}" if pa.types.is_timestamp(kind) else str(kind)


def reasons() -> str:
    """Every code of ``quarantine.reason``."""
    rows = [(f"`{reason.value}`", reason.meaning, reason.remedy) for reason in Reason]
    return _table(("code", "what it means", "what to do"), rows)


def commands() -> str:
    """Every command of ``hisam`` with its arguments and options."""
    group: Any = typer.main.get_command(app)
    whole = [_command("hisam COMMAND", group)] if group.params else []
    return "\n\n".join([*whole, *(_command(f"hisam {name}", command) for name, command in group.commands.items())])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)])
    rows = [(f"`{p.name.upper()}`", _usual(p), p.help or "") for p in arguments]
    for option in command.params:
        if option.param_type_name == "option":
            names = ", ".join(f"`{spelling}`" for spelling in sorted(option.opts))
            rows.append((names, _usual(option), option.help or ""))
    return f"### `{usage}`\n\n{command.help}\n\n{_table(('option', 'default', 'what it does'), rows)}"


def _usual(parameter: Any) -> str:
    if parameter.required:
        return "**required**"
    value = parameter.default
    return "" if value is None or value is False or value == [] else f"`{value}`"


def imports() -> str:
    """Who may import whom, drawn from the contracts of import-linter."""
    settings = tomllib.loads((PAGES.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [contract for contract in settings["contracts"] if contract["type"] == "layers"]
    layers.sort(key=lambda contract: not contract["containers"])  # a folder is drawn before arrows lead to it
    lines = ["```mermaid", "flowchart TD"]
    for contract in layers:
        arrows = _arrows(contract["layers"])
        for package in contract["containers"]:
            arrows = [f"    subgraph {package}", *(f"    {arrow}" for arrow in arrows), "    end"]
        lines += arrows
    forbidden = [
        (_code(contract["source_modules"]), _code(contract["forbidden_modules"]), contract["name"])
        for contract in settings["contracts"]
        if contract["type"] == "forbidden"
    ]
    return "\n".join([*lines, "```", "", _table(("folder", "never imports", "rule"), forbidden)])


def _arrows(layers: Sequence[str]) -> list[str]:
    levels = [[name.strip() for name in layer.split("|")] for layer in layers]
    return [f"    {upper} --> {lower}" for above, below in pairwise(levels) for upper in above for lower in below]


# Markdown


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _plain(docstring: str) -> str:
    """A docstring as Markdown."""
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", docstring.replace("``", "`"))


PARTS: Mapping[str, Callable[[], str]] = {
    "configuration": configuration,
    "tables": tables,
    "reasons": reasons,
    "commands": commands,
    "imports": imports,
    "gates": lambda: keys(Gates),
    "fetch": lambda: keys(Fetch),
    "text_encoder": lambda: keys(TextEncoder),
}

if __name__ == "__main__":
    for file in PAGES.glob("*.md"):
        file.write_text(written(file.read_text()))

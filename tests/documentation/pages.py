"""What the pages of the documentation hold: their links, blocks and words in code, each with where it stands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from docs.reference import section_paths
from pipeline.config.file import sections

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/notebook.ipynb"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docker/README.md", *sorted(ROOT.glob("docs/*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    """A page's Markdown, without HTML's comments."""
    return re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)


def fenced(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for name, body in FENCED.findall(text_of(page)) if name == language]


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of blocks that a shell is to run: those indented, and those after a ``$`` in a console's block."""
    prose = FENCED.sub("", text_of(page)).replace("\\\n", " ")
    yield from (line.strip() for line in prose.splitlines() if line.startswith("    "))
    for block in fenced(page, "console"):
        yield from (line[2:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ "))


def code_words(page: Path) -> list[str]:
    """Every piece of code within a sentence or a table, line breaks made spaces."""
    prose = FENCED.sub("", text_of(page))
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("    "))
    return [" ".join(found.split()) for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose.replace("\\|", "|"))]


def links(page: Path) -> list[str]:
    """The targets of all links and pictures that do not leave the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text_of(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def unknown_keys(settings: Any, models: list[type[BaseModel]]) -> list[str]:
    """The keys of a part of a configuration that none of the sections ``models`` has, the values' own included."""
    if not isinstance(settings, dict) or not models:
        return []
    fitting = [model for model in models if settings.keys() <= model.model_fields.keys()]
    if not fitting:
        return sorted(str(key) for key in settings)
    inner = {key: [s for m in fitting for s in sections(m.model_fields[key].annotation).values()] for key in settings}
    return [f"{key}.{wrong}" for key, value in settings.items() for wrong in unknown_keys(value, inner[key])]


def is_key(path: str) -> bool:
    """Whether a dotted path leads to a key, from the top of the file or from within any section."""
    return any(_leads(path.split("."), model) for model in section_paths())


def _leads(steps: list[str], model: type[BaseModel]) -> bool:
    field = model.model_fields.get(steps[0])
    if field is None:
        return False
    kinds = list(sections(field.annotation).values())
    if len(steps) == 1 or (not kinds and "dict" in str(field.annotation)):
        return True
    return any(_leads(steps[1:], kind) for kind in kinds)

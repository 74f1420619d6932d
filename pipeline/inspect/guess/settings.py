"""A commented configuration file from guesses: what could not be guessed is a comment that says what to write."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.inspect.guess.catalogue import Catalogue, template
from pipeline.inspect.guess.files import Reading
from pipeline.inspect.guess.log import Log
from pipeline.inspect.guess.vectors import Vectors

CODES = (8, 256)  # of a level, at least and at most
HOSTS = 20  # named in a comment
SMALL = 10_000  # items; fewer are learned by heart without more noise


@dataclass(frozen=True)
class Guesses:
    """Everything that a configuration file is written from."""

    source: str
    reading: Reading
    catalogue: Catalogue
    items: int
    repeated: int  # rows whose id another row has, too
    log: tuple[str, Reading, Log] | None = None


def written(guesses: Guesses, target: Path) -> str:
    """The text of the file ``target``, to whose folder its paths are relative."""
    home = target.resolve().parent
    parts = [
        ["# Written by hisam init, which guesses: read it once. hisam check shows what comes of it.", "lake: ./lake"],
        _catalog(guesses, home),
        _interactions(guesses, home),
        _encoders(guesses.catalogue),
        _tokenizer(guesses),
    ]
    # Names of columns may hold line breaks, which must not end a comment.
    return "\n\n".join("\n".join(" ".join(line.splitlines()) for line in part) for part in parts) + "\n"


def _catalog(guesses: Guesses, home: Path) -> list[str]:
    found = guesses.catalogue
    lines = ["catalog:", *_source(guesses.source, guesses.reading, home, "  ")]
    if found.id is None:
        lines.append("  # id: no column has another value in every row; write the one that names an item")
    else:
        again = f"  # {guesses.repeated:,} rows have the id of another one" if guesses.repeated else ""
        lines.append(f"  id: {_plain(found.id)}{again}")
    if found.text:
        lines.append(f"  text: {_plain(template(found.text))}  # what is missing leaves nothing behind")
    else:
        lines.append(
            '  # text: no column of words was found; write a template over columns, such as "{title}. {brand}"'
        )
    if found.left_out:
        lines.append(f"  # words are also in: {', '.join(found.left_out)}")
    return lines + _image(found, home)


def _image(found: Catalogue, home: Path) -> list[str]:
    picture = found.picture
    if picture is None:
        return [] if "image" in found.vectors else ["  # image: no column of pictures was found: {column: …, root: …}"]
    section: dict[str, Any] = {"column": picture.column} | (
        {"root": _relative(picture.root, home)} if picture.root else {}
    )
    if "image" in found.vectors:
        return [f"  # pictures are in {picture.column}; their vectors are taken instead, see encoders.image"]
    if picture.kind == "url":
        section |= {"fetch": {"hosts": picture.hosts[:HOSTS]}}
        return [
            "  # pictures are URLs: take away the # to have them fetched from these hosts; then image_levels: 2",
            f"  # image: {_flow(section)}",
        ]
    if picture.kind == "path" and picture.root is None:
        return [
            f"  # image: {{column: {_plain(picture.column)}, root: …}}  # name the folder that its paths start from"
        ]
    return [f"  image: {_flow(section)}"]


def _interactions(guesses: Guesses, home: Path) -> list[str]:
    if guesses.log is None:
        return ["# interactions: the log that a ranker learns from; hisam init SOURCE --interactions FILE guesses it"]
    path, reading, log = guesses.log
    lines = _source(path, reading, home, "  ")
    lines.append(f"  user: {_plain(log.user)}" if log.user else "  # user: write the column that names the user")
    lines.append(f"  item: {_plain(log.item)}" if log.item else "  # item: write the column that has the item's id")
    if log.time:
        lines.append(f"  time: {_flow({'column': log.time, 'unit': log.unit})}")
    else:
        lines.append("  # time: {column: …, unit: s}  # or ms, or timestamp: no column of times was found")
    if log.label:
        lines.append(f"  label: {_plain(log.label)}  # what counts as liked: {log.why}")
    else:
        lines.append(
            '  # label: write a Spark SQL expression for what counts as liked, such as "try_cast(rating AS double) > 3"'
        )
    if log.user and log.item and log.time and log.label:
        return ["interactions:", *lines]
    return [
        "# interactions: not whole yet; take away the # once it is",
        *(f"# {line}" for line in ["interactions:", *lines]),
    ]


def _encoders(found: Catalogue) -> list[str]:
    better = {"text": "sentence-transformers/all-MiniLM-L6-v2", "image": "google/siglip2-base-patch16-224"}
    there = {"text": bool(found.text), "image": found.picture is not None and found.picture.kind != "url"}
    lines = []
    for modality, model in better.items():
        if modality in found.vectors:
            lines += _vectors(modality, found.vectors[modality])
        elif there[modality]:
            lines.append(f"  {modality}: {{model: builtin}}  # needs no download; better is {model}, or a local folder")
    return (
        ["encoders:", *lines] if lines else ["# encoders: where vectors exist, text: {column: …, name: …, version: 1}"]
    )


def _vectors(modality: str, vectors: Vectors) -> list[str]:
    section = {"column": vectors.column, "name": vectors.column, "version": 1, "dim": vectors.width}
    section |= {"dtype": vectors.dtype} if vectors.dtype else {}
    return [f"  {modality}: {_flow(section)}  # name and version say what made them: write your own"]


def _tokenizer(guesses: Guesses) -> list[str]:
    found, items = guesses.catalogue, guesses.items
    text = bool(found.text) or "text" in found.vectors
    image = "image" in found.vectors or (found.picture is not None and found.picture.kind != "url")
    if not text and not image:  # nothing is known yet
        text = image = True
    lines = [
        f"tokenizer:  # for {items:,} items; docs/tokenizer.md says how to choose",
        f"  codebook_size: {codebook_size(items)}  # codes of a level: more want more items, with fewer IDs collide",
        "  shared_levels: 3",
        f"  text_levels: {2 if text else 0}",
        f"  image_levels: {2 if image else 0}",
    ]
    if items < SMALL:
        lines += ["  input_noise: 1.0  # this and the next three: for a small catalogue", "  dropout: 0.3"]
        lines += ["  decorrelation_weight: 0.3", "  linear_start: true"]
    return lines


def codebook_size(items: int) -> int:
    """A power of two: 30 items a code; for a small catalogue more, so that few of its items share their codes."""
    least, most = CODES
    by_items, by_pairs = math.floor(math.log2(max(1, items) / 30)), round(math.log2(1.5 * max(1, items) ** 0.5))
    return int(min(most, max(least, 2 ** max(0, by_items, by_pairs))))


def _source(path: str, reading: Reading, home: Path, indent: str) -> list[str]:
    section: dict[str, Any] = {"path": _relative(path, home), "format": reading.format}
    section |= {"options": reading.options} if reading.options else {}
    section |= {"columns": reading.columns} if reading.columns else {}
    return [*(f"{indent}# {note}" for note in reading.notes), f"{indent}source: {_flow(section)}"]


def _relative(path: str | Path | None, home: Path) -> str:
    """A path as seen from the file's folder, where it lies in or beside that."""
    if "://" in str(path):
        return str(path)
    relative = os.path.relpath(Path(str(path)).resolve(), home)
    return str(Path(str(path)).resolve()) if relative.startswith("../..") else relative


def _flow(value: Any) -> str:
    """A value on one line; JSON is YAML, too."""
    said = str(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)).strip()
    return json.dumps(value) if len(said.splitlines()) > 1 else said


def _plain(value: Any) -> str:
    return _flow([value])[1:-1]

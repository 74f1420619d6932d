"""How a file or folder is to be read: its format, and of text its encoding, separator and header."""

import bz2
import codecs
import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
HEAD_BYTES = 2**18
SEPARATORS = (",", ";", "\t", "|", "::")
HEADING = 60  # characters that the name of a column has at most


@dataclass(frozen=True)
class Reading:
    """The section ``source`` of a configuration, but for its path, and what a newcomer should know of it."""

    format: str
    options: dict[str, Any] = field(default_factory=dict)
    columns: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def guess_reading(path: str) -> Reading:
    """How to read ``path``, by its name and its first :data:`HEAD_BYTES`; a URI is judged by its name alone.

    Raises:
        ConfigError: there is no such file, or no file in the folder.
    """
    if "://" in path:
        kind = FORMATS.get(_suffix(path), "parquet")
        note = f"a guess by the name alone: is it {kind}?"
        return Reading(kind, {"header": True} if kind == "csv" else {}, notes=[note])
    place = Path(path)
    if (place / "_delta_log").is_dir():
        return Reading("delta")
    file = _first_file(place)
    head = _head(file)
    if head.startswith(b"PAR1"):
        return Reading("parquet")
    text, encoding = _decoded(head)
    options: dict[str, Any] = {"encoding": encoding} if encoding else {}
    notes = [f"{file.name} is not UTF-8; {encoding} is a guess"] if encoding == "ISO-8859-1" else []
    if FORMATS.get(_suffix(file.name)) == "json" or (_suffix(file.name) not in FORMATS and text.lstrip()[:1] in "[{"):
        return Reading("json", ({"multiLine": True} if _is_spread(text) else {}) | options, notes=notes)
    return _csv(text, options, notes, whole=len(head) < HEAD_BYTES)


def _suffix(name: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in PACKED), "")


def _first_file(place: Path) -> Path:
    if place.is_file():
        return place
    if not place.is_dir():
        raise ConfigError(f"there is no file or folder {place}")
    for file in sorted(place.rglob("*")):
        hidden = any(part.startswith(("_", ".")) for part in file.relative_to(place).parts)  # which Spark skips
        if file.is_file() and not hidden and file.stat().st_size:
            return file
    raise ConfigError(f"{place} has no file with anything in it; Spark skips names that begin with _ or .")


def _head(file: Path) -> bytes:
    with PACKED.get(file.suffix.lower(), open)(file, "rb") as stream:
        return bytes(stream.read(HEAD_BYTES))


def _decoded(head: bytes) -> tuple[str, str | None]:
    """The text, and its encoding where that is not UTF-8. A character that the end cuts is left out."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return codecs.getincrementaldecoder("utf-16")().decode(head), "UTF-16"
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head), None
    except UnicodeDecodeError:
        return head.decode("latin-1"), "ISO-8859-1"


def _is_spread(text: str) -> bool:
    """Whether JSON values go over several lines."""
    first, newline, _ = text.lstrip().partition("\n")
    if not newline:
        return False
    try:
        json.loads(first)
    except ValueError:
        return True
    return False


def _csv(text: str, options: dict[str, Any], notes: list[str], *, whole: bool) -> Reading:
    separator, rows = _separated(text, whole=whole)
    if separator != ",":
        options = options | {"sep": separator}
    if not rows:
        return Reading("csv", options | {"header": True}, notes=notes)
    if _is_header(rows):
        return Reading("csv", options | {"header": True}, notes=notes)
    names = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
    return Reading("csv", options, names, [*notes, "the first line looks like a row, so there is no header: name them"])


def _separated(text: str, *, whole: bool) -> tuple[str, list[list[str]]]:
    """The separator that cuts the most rows into equally many values, and the rows."""
    best, found = (0.0, 1), (",", _rows(text, ",", whole=whole))
    for separator in SEPARATORS:
        rows = _rows(text, separator, whole=whole)
        width, times = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        if width > 1 and (times / len(rows), width) > best:
            best, found = (times / len(rows), width), (separator, rows)
    return found


def _rows(text: str, separator: str, *, whole: bool) -> list[list[str]]:
    if len(separator) > 1:
        rows = [line.split(separator) for line in text.splitlines()]
    else:
        try:
            rows = [*csv.reader(io.StringIO(text, newline=""), delimiter=separator)]
        except csv.Error:  # an endless quoted value
            return []
    return [row for row in (rows if whole or len(rows) < 2 else rows[:-1]) if row]


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: short words, none twice, none that looks as its column's values do."""
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    if any(not cell or len(cell) > HEADING or _is_number(cell) for cell in first) or len({*first}) < len(first):
        return False
    for column, cell in enumerate(first):
        shapes = Counter(_shape(row[column].strip()) for row in rest if column < len(row))
        if "0" in _shape(cell) and shapes[_shape(cell)] > 0.9 * len(rest) > 0:
            return False
    return True


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]*\d[\d.,]*", cell) is not None


def _shape(cell: str) -> str:
    """``B0017`` as ``a0``: which runs of letters and digits a value has."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", cell))

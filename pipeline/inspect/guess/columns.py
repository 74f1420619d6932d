"""What the first values of a column look like."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from pipeline.on_spark import pictures

PICTURE = re.compile(r"\.(jpe?g|png|gif|webp|avif|bmp|tiff?)([?#].*)?$", re.IGNORECASE)
URL = re.compile(pictures.URL)
DATE = re.compile(r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?$")
LETTERS = re.compile(r"[^\W\d_]{2}")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class Profile:
    """A column's name, Spark's name of its type, and its values in the first rows."""

    name: str
    kind: str
    values: Sequence[Any]
    path: tuple[str, ...] = ()  # of a field of a column: the names that lead to it

    @property
    def expression(self) -> str:
        """The column in a Spark SQL expression."""
        parts = self.path or (self.name,)
        return ".".join(p if re.fullmatch(r"[A-Za-z_]\w*", p, re.ASCII) else f"`{p}`" for p in parts)

    @cached_property
    def present(self) -> list[Any]:
        """The values that are there: neither null nor blank."""
        return [v for v in self.values if v is not None and (not isinstance(v, str) or v.strip())]

    @cached_property
    def strings(self) -> list[str]:
        """The same as strings, a list's elements joined."""
        return [", ".join(map(str, v)) if isinstance(v, list) else str(v).strip() for v in self.present]

    @property
    def firsts(self) -> list[str]:
        """The same, of a list its first element."""
        firsts = (v[0] if isinstance(v, list) else v for v in self.present if v != [])
        return [str(v).strip() for v in firsts]

    @property
    def label(self) -> str:
        """The name in small letters, its words joined by ``_``."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name)
        return re.sub(r"[\W_]+", "_", words).strip("_").lower()

    @property
    def is_scalar(self) -> bool:
        """A string or a whole number, which ids may be."""
        return self.kind in ("string", "int", "bigint", "smallint", "tinyint")

    @property
    def is_whole(self) -> bool:
        """Whether every row has a value, and none has that of another."""
        return bool(self.values) and len(self.present) == len(self.values) == len({*map(str, self.present)})

    @property
    def length(self) -> float:
        """Characters that a value has on average."""
        return fmean(map(len, self.strings)) if self.strings else 0.0

    def share(self, pattern: re.Pattern[str]) -> float:
        """Of the values that are there, the share in which ``pattern`` is found."""
        return fmean(pattern.search(v) is not None for v in self.strings) if self.strings else 0.0

    def numbers(self) -> list[float]:
        """The values as numbers; empty unless all of them are."""
        try:
            return [float(v) for v in self.strings]
        except ValueError:
            return []

    @property
    def example(self) -> str:
        """The first value, short."""
        if not self.present:
            return "–"
        value = self.present[0]
        if isinstance(value, (bytes, bytearray)):
            return f"{len(value):,} bytes or more"
        shown = " ".join(str(value).split())
        return shown if len(shown) <= 50 else f"{shown[:49]}…"


def looks_like_picture(profile: Profile) -> str | None:
    """``bytes``, ``path`` or ``url`` where the column holds pictures or leads to them."""
    if profile.kind == "binary":
        opened = [bytes(v).startswith(MAGIC) or bytes(v)[8:12] in (b"WEBP", b"ftyp") for v in profile.present]
        return "bytes" if opened and fmean(opened) > 0.5 else None
    if profile.kind not in ("string", "array<string>") or not profile.present:
        return None
    named = re.search(r"(^|_)(image|img|picture|pic|photo|foto|bild|cover|poster|thumb|thumbnail)", profile.label)
    if profile.share(URL) > 0.5:
        return "url" if named or profile.share(PICTURE) > 0.5 else None
    return "path" if profile.share(PICTURE) > 0.5 else None

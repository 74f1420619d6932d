"""The forms of an ID, an item at a time: what the columns of codes are tested against."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from schemas.semantic_id import Layout

FORM = re.compile(r"s(\d+(?:-\d+)*)(?:\.t(\d+(?:-\d+)*))?(?:\.i(\d+(?:-\d+)*))?", re.ASCII)


class Codes(NamedTuple):
    """One item's codes by part; ``None`` where the modality is absent."""

    shared: tuple[int, ...]
    text: tuple[int, ...] | None
    image: tuple[int, ...] | None


def spelled(codes: Codes) -> str:
    """The readable form, ``s12-7-40.t3-9.i20-1``."""
    return ".".join(letter + "-".join(map(str, part)) for letter, part in zip("sti", codes, strict=True) if part)


def parsed(sid: str, layout: Layout) -> Codes:
    """The codes that ``sid`` spells; a part without a level is empty, and one that is not spelled absent."""
    match = FORM.fullmatch(sid)
    assert match is not None, sid
    parts = (tuple(map(int, part.split("-"))) if part else None for part in match.groups())
    shared, text, image = (part if n else () for part, n in zip(parts, layout.levels, strict=True))
    assert shared is not None
    return Codes(shared, text, image)


def filled(codes: Codes, layout: Layout) -> list[int]:
    """The row of codes that rankers read, absent slots filled with the reserved code."""
    absent = ((layout.absent,) * n for n in layout.levels)
    return [code for part, fill in zip(codes, absent, strict=True) for code in (fill if part is None else part)]


def split(row: Sequence[int], layout: Layout) -> Codes:
    """The inverse of :func:`filled`."""
    spans = layout.spans()
    text, image = (
        None if n and row[spans[part].start] == layout.absent else tuple(map(int, row[spans[part]]))
        for part, n in (("text", layout.text_levels), ("image", layout.image_levels))
    )
    return Codes(tuple(map(int, row[spans["shared"]])), text, image)

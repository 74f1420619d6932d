"""The layout of a semantic ID: which slots an item has, the code of an absent modality, the readable form.

An item's codes are one row of ``slots`` integers: the shared levels, then the text levels, then the image
levels. Every code lies in ``0 … codebook_size - 1``; an absent modality's slots hold ``codebook_size``.
The readable form is ``s12-7-40.t3-9.i20-1``; an absent modality is left out (``s12-7-40.t3-9``).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_CODEBOOK = 2**15 - 1  # codes, the absent one included, are stored as int16
PARTS = ("shared", "text", "image")

_FORM = re.compile(r"s(\d+(?:-\d+)*)(?:\.t(\d+(?:-\d+)*))?(?:\.i(\d+(?:-\d+)*))?", re.ASCII)


@dataclass(frozen=True)
class Codes:
    """One item's codes by part; ``None`` where the modality is absent."""

    shared: tuple[int, ...]
    text: tuple[int, ...] | None
    image: tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """Levels of each part and the number of codes a level has.

    Raises:
        ValueError: a part has no shared level, a negative count, or a codebook that int16 cannot hold.
    """

    shared_levels: int
    text_levels: int
    image_levels: int
    codebook_size: int

    def __post_init__(self) -> None:
        if self.shared_levels < 1 or self.text_levels < 0 or self.image_levels < 0:
            raise ValueError(f"a layout needs at least one shared level and no negative count: {self}")
        if not 2 <= self.codebook_size <= MAX_CODEBOOK:
            raise ValueError(f"codebook_size {self.codebook_size} is outside 2 to {MAX_CODEBOOK}")

    @property
    def levels(self) -> tuple[int, int, int]:
        """Number of levels of the shared, the text and the image part."""
        return self.shared_levels, self.text_levels, self.image_levels

    @property
    def slots(self) -> int:
        """Codes an item has, all parts together."""
        return sum(self.levels)

    @property
    def absent(self) -> int:
        """The reserved code that fills an absent modality's slots."""
        return self.codebook_size

    def spans(self) -> dict[str, slice]:
        """Where each part lies in a row of ``slots`` codes."""
        first, second = self.shared_levels, self.shared_levels + self.text_levels
        return {"shared": slice(0, first), "text": slice(first, second), "image": slice(second, self.slots)}

    def slot_names(self) -> list[str]:
        """Names of the slots in order: ``shared_0``, …, ``text_0``, …, ``image_0``, …"""
        return [f"{part}_{i}" for part, n in zip(PARTS, self.levels, strict=True) for i in range(n)]

    def format(self, codes: Codes) -> str:
        """The readable form of an item's codes.

        Raises:
            ValueError: a part has the wrong number of codes or a code outside the codebook.
        """
        self._check(codes)
        parts = (("s", codes.shared), ("t", codes.text), ("i", codes.image))
        return ".".join(letter + "-".join(map(str, part)) for letter, part in parts if part)

    def parse(self, sid: str) -> Codes:
        """The codes that ``sid`` spells.

        Raises:
            ValueError: ``sid`` is not of the form, or does not fit this layout.
        """
        match = _FORM.fullmatch(sid)
        if match is None:
            raise ValueError(f"{sid!r} is not a semantic ID; the form is s12-7-40.t3-9.i20-1")
        shared, text, image = (tuple(map(int, part.split("-"))) if part else None for part in match.groups())
        codes = Codes(
            shared or (),
            text if self.text_levels else (),
            image if self.image_levels else (),
        )
        if (text and not self.text_levels) or (image and not self.image_levels):
            raise ValueError(f"{sid!r} has a part that {self} does not have")
        self._check(codes)
        return codes

    def flatten(self, codes: Codes) -> list[int]:
        """The row of ``slots`` codes that rankers read, absent slots filled with the reserved code."""
        filled = (
            part if part is not None else (self.absent,) * n
            for part, n in zip((codes.shared, codes.text, codes.image), self.levels, strict=True)
        )
        return [code for part in filled for code in part]

    def split(self, row: Sequence[int]) -> Codes:
        """The inverse of :meth:`flatten`."""
        if len(row) != self.slots:
            raise ValueError(f"a row of {len(row)} codes does not fit {self.slots} slots")
        spans = self.spans()
        text, image = (
            None if n and row[spans[part].start] == self.absent else tuple(map(int, row[spans[part]]))
            for part, n in (("text", self.text_levels), ("image", self.image_levels))
        )
        return Codes(tuple(map(int, row[spans["shared"]])), text, image)

    def _check(self, codes: Codes) -> None:
        parts = (codes.shared, codes.text, codes.image)
        for name, part, n in zip(PARTS, parts, self.levels, strict=True):
            if part is None and name != "shared":
                continue
            if part is None or len(part) != n:
                raise ValueError(f"the {name} part has {len(part or ())} codes where the layout has {n}")
            wrong = [code for code in part if not 0 <= code < self.codebook_size]
            if wrong:
                last = self.codebook_size - 1
                raise ValueError(f"the {name} part has code {wrong[0]}, outside 0 to {last}")


def item_hash(item_id: str) -> int:
    """63 bits of a hash of an item's id: what tells items of equal codes apart, and what rankers know an item by.

    A function of the id alone, it cannot move, whatever neighbours an item has and whenever they came. Two ids
    of one tuple of codes agree with a chance of about 10⁻¹⁹ a pair; ``publish`` would refuse them. Spark has the same
    function in :func:`pipeline.on_spark.expressions.item_hash`.
    """
    return int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") >> 1

"""The layout of a semantic ID: which slots an item has, the code of an absent modality, the readable form.

An item's codes are one row of ``slots`` integers: the shared levels, then the text levels, then the image
levels. Every code lies in ``0 … codebook_size - 1``; an absent modality's slots hold ``codebook_size``.
The readable form is ``s12-7-40.t3-9.i20-1``; an absent modality is left out (``s12-7-40.t3-9``).
"""

import hashlib
from dataclasses import dataclass

MAX_CODEBOOK = 2**15 - 1  # codes, the absent one included, are stored as int16
MODALITIES = ("text", "image")
PARTS = ("shared", *MODALITIES)


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


def item_hash(item_id: str) -> int:
    """63 bits of a hash of an item's id: what tells items of equal codes apart, and what rankers know an item by.

    A function of the id alone, it cannot move, whatever neighbours an item has and whenever they came. Two ids
    of one tuple of codes agree with a chance of about 10⁻¹⁹ a pair; ``publish`` would refuse them. Spark has the same
    function in :func:`pipeline.on_spark.expressions.item_hash`.
    """
    return int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") >> 1

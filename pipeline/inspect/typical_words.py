"""What an item's codes stand for: by part and prefix, how many other items have it, and what their texts say.

A code has no name. The words that items with a prefix use more often than the catalogue does come closest to one.
"""

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline.lake.storage import Lake
from pipeline.release.releases import Release, released_ids
from schemas.semantic_id import PARTS
from schemas.tables import ITEMS

NEIGHBOURS = 10
EXAMPLES = 3
SAMPLE = 200  # items whose words speak for a prefix
CATALOGUE = 1000  # items whose words speak for the catalogue
WORDS = 5
COMMON = 0.3  # share of a prefix's items that use a word of its
LIFT = 1.5  # times as often as in the catalogue
FEWEST = 3  # texts that have words in common by more than chance

COLUMNS = ["item_id", "content_hash", "sid", "disambiguator", *PARTS]


class ReleasedCodes:
    """One item among the items of a release.

    N other items of the release.
    """

    def __init__(self, lake: Lake, release: Release, item_id: str) -> None:
        rows = released_ids(lake, release, COLUMNS)
        self._lake, self._release = lake, release
        own = rows.filter(ds.field("item_id") == item_id).to_pylist()
        self.own: dict[str, Any] | None = own[0] if own else None
        # In the order of a hash of the id: the first of them are a sample, the same one every time.
        self._others = rows.filter(ds.field("item_id") != item_id).sort_by("disambiguator")
        self._shared_N = {part: self._agreement(part) for part in PARTS} if self.own else {}

    def _agreement(self, part: str) -> NDArray[np.int64]:
        """How many codes of a part, from the first on, each other item has in common with this one."""
        column, codes = self._others[part], (self.own or {})[part]
        same_N = np.zeros(len(column), np.int64)
        if codes:
            codes_PL = np.asarray(pc.list_flatten(column)).reshape(-1, len(codes))
            same_N[np.asarray(pc.is_valid(column))] = np.cumprod(codes_PL == codes, axis=1).sum(axis=1)
        return same_N

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """``words``: what the item's prefixes stand for; ``neighbours``: the items of nearest codes. With texts."""
        if self.own is None:
            return {"words": [], "neighbours": []}
        near = self._nearest()
        prefixes = [
            (part, length, np.flatnonzero(self._shared_N[part] >= length))
            for part in PARTS
            for length in range(1, len(self.own[part] or ()) + 1)
        ]
        sampled = [near, np.arange(min(CATALOGUE, self._others.num_rows)), *(rows[:SAMPLE] for *_, rows in prefixes)]
        texts = self._texts(np.unique(np.concatenate(sampled)))
        everywhere = _use(_said(texts, sampled[1]))
        return {
            "words": [self._prefix(*prefix, texts, everywhere) for prefix in prefixes],
            "neighbours": [self._neighbour(row, texts) for row in near.tolist()],
        }

    def _nearest(self) -> NDArray[np.int64]:
        """Items that share the longest run of shared codes, and of those the ones whose own codes agree longest."""
        own_parts_N = self._shared_N["text"] + self._shared_N["image"]
        order_N = np.lexsort((-own_parts_N, -self._shared_N["shared"]))[:NEIGHBOURS]
        return order_N[self._shared_N["shared"][order_N] > 0]

    def _neighbour(self, row: int, texts: dict[int, str | None]) -> dict[str, Any]:
        found = self._others.select(["item_id", "sid"]).slice(row, 1).to_pylist()[0]
        agreement = {f"{part}_codes": int(self._shared_N[part][row]) for part in PARTS}
        return found | agreement | {"text": texts[row]}

    def _prefix(
        self, part: str, length: int, rows_N: NDArray[np.int64], texts: dict[int, str | None], everywhere: Counter[str]
    ) -> dict[str, Any]:
        said = _said(texts, rows_N[:SAMPLE])
        return {
            "part": part,
            "prefix": part[0] + "-".join(map(str, (self.own or {})[part][:length])),
            "items": len(rows_N),
            "words": _telling(said, everywhere, min(CATALOGUE, self._others.num_rows)),
            "examples": [
                {"item_id": self._others["item_id"][int(r)].as_py(), "text": texts[int(r)]} for r in rows_N[:EXAMPLES]
            ],
        }

    def _texts(self, rows_N: NDArray[np.int64]) -> dict[int, str | None]:
        """The released texts of some of the other items, by row."""
        chosen = self._others.select(["item_id", "content_hash"]).take(pa.array(rows_N))
        wanted = ds.field("item_id").isin(chosen["item_id"].combine_chunks()) & ~ds.field("deleted")
        columns = ["item_id", "content_hash", "text"]
        found = self._lake.read(ITEMS, columns, where=wanted, version=self._release.items_version).to_pylist()
        texts = {(row["item_id"], row["content_hash"]): row["text"] for row in found}
        keys = [(row["item_id"], row["content_hash"]) for row in chosen.to_pylist()]
        return {row: texts[key] for row, key in zip(rows_N.tolist(), keys, strict=True)}


def _said(texts: dict[int, str | None], rows_N: NDArray[np.int64]) -> list[str]:
    return [text for row in rows_N.tolist() if (text := texts[row])]


def _use(texts: list[str]) -> Counter[str]:
    """In how many texts each word occurs."""
    return Counter(word for text in texts for word in set(re.findall(r"[^\W\d_]{3,}", text.lower())))


def _telling(texts: list[str], everywhere: Counter[str], catalogue: int) -> list[str]:
    """Words that many of the texts use and the catalogue uses less, the most telling first."""
    if len(texts) < FEWEST:
        return []
    weight = {}
    for word, count in _use(texts).items():
        here, there = count / len(texts), (everywhere[word] + 1) / (catalogue + 1)
        if here >= COMMON and here > LIFT * there:
            weight[word] = here * math.log(here / there)
    return sorted(weight, key=lambda word: (-weight[word], word))[:WORDS]

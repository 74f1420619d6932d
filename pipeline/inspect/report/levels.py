"""How the codes of every level are used."""

import math
from typing import Any

from pyspark.sql import functions as F

from pipeline.inspect.report.subject import Subject
from pipeline.on_spark.expressions import filled_codes
from schemas.semantic_id import PARTS

POINTS = 100  # of a level's curve


def levels(about: Subject) -> list[dict[str, Any]]:
    """By level ``items`` that have it, codes ``used`` of the codebook, ``perplexity`` (0 to the codebook's size), the
    ``largest`` code and its ``share``, and ``curve``: items of the codes from the largest to the smallest, at up to
    :data:`POINTS` codes evenly apart (``rank`` counts from 1)."""
    codes = about.rows.select(F.posexplode(filled_codes(about.layout, absent=-1)).alias("slot", "code"))
    uses = codes.where("code >= 0").groupBy("slot", "code").agg(F.count("*").alias("n")).collect()
    by_slot: dict[int, dict[int, int]] = {}
    for row in uses:
        by_slot.setdefault(row["slot"], {})[row["code"]] = row["n"]
    names = about.layout.slot_names()
    return [_level(about, names[slot], by_slot[slot]) for slot in sorted(by_slot)]


def first_codes(found: list[dict[str, Any]]) -> dict[int, int]:
    """Items by first shared code, the most frequent first."""
    return next(level["counts"] for level in found if level["slot"] == f"{PARTS[0]}_0")


def _level(about: Subject, name: str, uses: dict[int, int]) -> dict[str, Any]:
    ranked = dict(sorted(uses.items(), key=lambda use: (-use[1], use[0])))
    items, sizes = sum(ranked.values()), list(ranked.values())
    entropy = -math.fsum(n / items * math.log(n / items) for n in sizes)
    ranks = sorted({round(i * (len(sizes) - 1) / max(1, POINTS - 1)) for i in range(POINTS)})
    ranks = [rank for rank in ranks if rank < len(sizes)]
    return {
        "slot": name,
        "items": items,
        "codes": about.layout.codebook_size,
        "used": len(sizes),
        "perplexity": math.exp(entropy),
        "largest": next(iter(ranked)),
        "share": sizes[0] / items,
        "curve": [{"rank": rank + 1, "items": sizes[rank]} for rank in ranks],
        "counts": ranked,
    }

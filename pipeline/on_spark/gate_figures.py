"""What the gates look at: figures of the rows that are to be released, alone and against the released ones.

All are aggregates over fixed-width keys, hashes of 64 bits in place of strings, so that Spark counts in hash tables;
the driver gets a row of figures, or one for each level. ``rows`` are always of ``released_ids``.

N items, K codes of a level.
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipeline.on_spark.expressions import filled_codes
from pipeline.release.pointer import Release
from schemas.semantic_id import MODALITIES, Layout


@dataclass(frozen=True)
class Totals:
    """Of rows that are to be released: how many items they are, the share ``without`` each modality, and ``hashes``,
    which depends on nothing but what the rows say, in whatever order and files they are."""

    items: int
    without: dict[str, float]
    hashes: str

    def digest(self, tokenizer: str) -> str:
        """A name of the rows under their tokenizer."""
        return f"{tokenizer}-{self.items}-{self.hashes}"

    def coverage(self, live_items: int) -> dict[str, Any]:
        """How many of the current items have an ID."""
        return {"live_items": live_items, "items_with_ids": self.items, "coverage": self.items / live_items}


def figures(
    rows: DataFrame,
    found: Totals,
    layout: Layout,
    current: DataFrame,
    standing: DataFrame | None,
    release: Release | None,
) -> dict[str, Any]:
    """All that is measured of the rows that are to be released, but for their coverage: :func:`measure`, and
    :func:`drift` from the ``standing`` rows of ``release``, where there are any to compare with."""
    measured = measure(rows, found, layout)
    if standing is None or release is None:
        return measured
    against = {"release": release.version, "tokenizer": release.tokenizer}
    return measured | drift(standing, rows, current) | {"against": against}


def measure(rows: DataFrame, found: Totals, layout: Layout) -> dict[str, Any]:
    """Figures of the IDs alone, of which there is at least one; shares lie in 0 to 1.

    Args:
        rows: that are to be released.
        found: their :func:`totals`.
        layout: of their tokenizer.

    Returns:
        Among others ``perplexity``, that of the level whose codes are used least evenly, and ``code_share``, the
        greatest of any level; ``levels`` has both by level, see :func:`code_use`.
    """
    levels = code_use(rows, layout)
    return {
        **collisions(rows),
        "perplexity": min(level["perplexity"] for level in levels.values()),
        "code_share": max(level["code_share"] for level in levels.values()),
        "levels": levels,
        **{f"without_{m}": share for m, share in found.without.items()},
    }


def totals(rows: DataFrame) -> Totals:
    """Of rows that are to be released, in one pass."""
    each = F.xxhash64("item_id", "content", "sid").cast("decimal(20,0)")
    without = [F.count_if(~F.col(f"has_{m}")).alias(m) for m in MODALITIES]
    row = _only(rows.agg(F.count("*").alias("items"), F.sum(each).alias("hashes"), *without))
    return Totals(row["items"], {m: row[m] / max(1, row["items"]) for m in MODALITIES}, str(row["hashes"]))


def collisions(rows: DataFrame) -> dict[str, Any]:
    """What is shared, where content is a text and a picture together:

    ``collision_rate``, the share of items whose codes an item of other content has too; ``items_sharing_codes`` with
    any other item; ``largest_group``, the most contents that have the same codes; ``items_sharing_an_id``, those that
    have both codes and item hash of another one.
    """
    keys = rows.select(F.xxhash64("sid").alias("codes"), F.xxhash64("content").alias("content"), "item_hash")
    each = F.count("*").alias("n"), F.count_distinct("content").alias("contents")
    tuples = keys.groupBy("codes").agg(*each, F.count_distinct("item_hash").alias("ids"))
    found = _only(
        tuples.agg(
            F.sum("n").alias("items"),
            F.sum(F.when(F.col("contents") > 1, F.col("n")).otherwise(0)).alias("colliding"),
            F.sum(F.when(F.col("n") > 1, F.col("n")).otherwise(0)).alias("sharing"),
            F.max("contents").alias("largest"),
            F.sum(F.col("n") - F.col("ids")).alias("same"),
        )
    )
    return {
        "collision_rate": found["colliding"] / found["items"] if found["items"] else 0.0,
        "items_sharing_codes": found["sharing"] or 0,
        "largest_group": found["largest"] or 0,
        "items_sharing_an_id": found["same"] or 0,
    }


def code_use(rows: DataFrame, layout: Layout) -> dict[str, dict[str, Any]]:
    """How evenly the codes of each level are used by the N items that have the level; a level of none is left out.

    ``perplexity``, e to the entropy of the codes, over min(K, N): 1 where all are used alike. ``code_share``, the
    largest code's share of items times min(K, N): how many times an even share it has.
    """
    codes = rows.select(F.posexplode(filled_codes(layout, absent=-1)).alias("slot", "code")).where("code >= 0")
    uses = codes.groupBy("slot", "code").agg(F.count("*").alias("n"))
    n_log_n = (F.col("n") * F.log("n")).cast("decimal(28, 9)")  # whose sum is the same in every order
    levels = uses.groupBy("slot").agg(
        F.sum("n").alias("items"), F.sum(n_log_n).alias("n_log_n"), F.max("n").alias("most")
    )
    names, found = layout.slot_names(), {}
    for row in sorted(levels.collect(), key=lambda row: row["slot"]):
        items = row["items"]
        usable = min(layout.codebook_size, items)
        entropy = math.log(items) - float(row["n_log_n"]) / items
        found[names[row["slot"]]] = {
            "items": items,
            "perplexity": math.exp(entropy) / usable,
            "code_share": row["most"] / items * usable,
        }
    return found


def drift(standing: DataFrame, rows: DataFrame, current: DataFrame) -> dict[str, Any]:
    """How far ``rows`` have gone from the ``standing`` ones, of which there is at least one.

    ``row_drift`` is the change of the number of items that have an ID, up or down, as a share of the released number;
    ``deleted_fraction`` the share of released items that are no longer current. Of the items whose content is as
    released, ``ids_moved`` counts those that have another ID of the same modalities, which means nothing between two
    tokenizers; a picture that could be encoded at last may move an ID.
    """
    one, has = F.lit(1), [f"has_{m}" for m in MODALITIES]
    sides = [
        current.select("item_id", one.alias("current")),
        *(
            frame.select(
                "item_id",
                one.alias(side),
                F.xxhash64("content").alias(f"{side}_content"),
                F.xxhash64("sid", "item_hash").alias(f"{side}_id"),
                *(F.col(name).alias(f"{side}_{name}") for name in has),
            )
            for side, frame in (("old", standing), ("new", rows))
        ),
    ]
    together = reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), sides)
    values = [name for name in together.columns if name != "item_id"]
    items = together.groupBy("item_id").agg(*(F.max(name).alias(name) for name in values))
    old, new = F.col("old").isNotNull(), F.col("new").isNotNull()
    unchanged = F.col("old_content") == F.col("new_content")
    alike = reduce(Column.__and__, (F.col(f"old_{name}") == F.col(f"new_{name}") for name in has))
    lacking = (F.count_if(~F.col(f"{side}_{name}")).alias(f"{side}_{name}") for side in ("old", "new") for name in has)
    found = _only(
        items.agg(
            *(F.count(side).alias(side) for side in ("old", "new")),
            F.count_if(old & F.col("current").isNull()).alias("deleted"),
            F.count_if(new & ~old).alias("added"),
            F.count_if(unchanged).alias("unchanged"),
            F.count_if(unchanged & alike & (F.col("old_id") != F.col("new_id"))).alias("moved"),
            *lacking,
        )
    )
    before, after = found["old"], found["new"]

    def growth(modality: str) -> float:
        return float(found[f"new_has_{modality}"] / max(1, after) - found[f"old_has_{modality}"] / before)

    return {
        "row_drift": abs(after - before) / before,
        "deleted_items": found["deleted"],
        "deleted_fraction": found["deleted"] / before,
        "new_items": found["added"],
        "unchanged_items": found["unchanged"],
        "ids_moved": found["moved"],
        **{f"without_{m}_growth": growth(m) for m in MODALITIES},
    }


def _only(frame: DataFrame) -> Row:
    """The row of an aggregate that has one."""
    row = frame.first()
    assert row is not None
    return row

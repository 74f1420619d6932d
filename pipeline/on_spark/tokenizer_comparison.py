"""What moving from one tokenizer to another would mean for an item's codes, level by level, over the current items.

Code numbers are arbitrary: two trainings that group items alike number the groups differently. So beside the share of
items whose number changed stand two figures that do not depend on numbering. Spark counts; of a level at most K × K
counts reach the driver, and the codes of a sample of items.

N items, K codes of a level, L levels of a part.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from sklearn.metrics import adjusted_mutual_info_score

from pipeline.config.models import SparkSettings
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.storage import Lake
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.gate_figures import collisions
from pipeline.on_spark.released_ids import candidate_rows
from schemas.semantic_id import PARTS
from schemas.tables import ITEMS, SEMANTIC_IDS

SAMPLE = 10_000  # items that mutual information looks at: its correction for chance takes the square of that
UNMATCHED = 1e-6  # what leaving a code without a partner is worth, in items


def compare_tokenizers(spark: SparkSession, lake: Lake, settings: SparkSettings, old: str, new: str) -> dict[str, Any]:
    """The figures of moving the current items from tokenizer ``old`` to ``new``; ``levels`` are of :func:`by_level`.

    Parts are compared where both tokenizers have them: level by level up to the shorter one's for the shared part,
    whole for the text's and the image's, whose levels must be the same in number.

    Raises:
        ConfigError: the lake has no such tokenizer.
    """
    shapes = [tokenizer_layout(lake, name).levels for name in (old, new)]
    tables = spark_delta(spark, lake, settings)
    current = current_items(tables.read(ITEMS), "content").persist(StorageLevel.DISK_ONLY)
    ids = {
        name: candidate_rows(current, tables.read(SEMANTIC_IDS, where={"tokenizer": name}), 0).persist(
            StorageLevel.DISK_ONLY
        )
        for name in (old, new)
    }
    before, after = (
        ids[name].select("item_id", "item_hash", F.struct(*PARTS).alias(side))
        for name, side in ((old, "old"), (new, "new"))
    )
    both = before.join(after.drop("item_hash"), on="item_id", how="inner").persist(StorageLevel.DISK_ONLY)
    levels = []
    for part, old_levels, new_levels in zip(PARTS, *shapes, strict=True):
        if old_levels == new_levels or part == "shared":
            pairs = both.select("item_hash", F.col(f"old.{part}").alias("old"), F.col(f"new.{part}").alias("new"))
            levels += by_level(part, pairs.dropna(), min(old_levels, new_levels))
    counts = {name: rows.count() for name, rows in (("current", current), ("both", both), *ids.items())}
    found = {
        "released": old,
        "tokenizer": new,
        "items": counts["both"],
        "released_alone": counts[old] - counts["both"],
        "tokenizer_alone": counts[new] - counts["both"],
        "without_either": counts["current"] - counts[old] - counts[new] + counts["both"],
        "levels": levels,
        "collision_rate": {name: collisions(rows)["collision_rate"] for name, rows in ids.items()},
    }
    for frame in (both, *ids.values(), current):
        frame.unpersist()
    return found


def by_level(part: str, pairs: DataFrame, levels: int) -> list[dict[str, Any]]:
    """For every level of a part, of N items that have it under both tokenizers:

    ``renumbered``, the share of items whose code is another number; ``moved``, the share that is left when the codes
    of the level are renamed as well as one can; ``prefix_information``, the adjusted mutual information of the two
    groupings by all codes up to the level: 1 for the same groups, 0 for what chance gives. The last one is measured on
    at most :data:`SAMPLE` items, those of the smallest hashes.

    Args:
        part: its name.
        pairs: ``item_hash``, ``old`` and ``new``, lists of at least ``levels`` codes.
        levels: to compare.
    """
    sample = pairs.orderBy("item_hash").limit(SAMPLE).select("old", "new").toArrow() if levels else None
    found = []
    for level in range(levels):
        codes = pairs.select(F.col("old")[level].alias("old"), F.col("new")[level].alias("new"))
        table = codes.groupBy("old", "new").agg(F.count("*").alias("items")).toArrow()
        old_P, new_P, items_P = (np.asarray(table[name]) for name in ("old", "new", "items"))
        items = int(items_P.sum())
        figures: dict[str, Any] = {"slot": f"{part}_{level}", "items": items}
        if items:
            prefixes = [_groups(sample, side, level + 1) for side in ("old", "new")]
            figures |= {
                "renumbered": float(items_P[old_P != new_P].sum() / items),
                "moved": 1 - matched(old_P, new_P, items_P) / items,
                "prefix_information": float(adjusted_mutual_info_score(*prefixes)),
            }
        found.append(figures)
    return found


def matched(old_P: NDArray[Any], new_P: NDArray[Any], items_P: NDArray[Any]) -> int:
    """The items that keep their code under the best one-to-one renaming of codes.

    The assignment problem on the contingency table, kept sparse, for codebooks of thousands. Each old code may
    also stay alone, in a column of its own.

    Args:
        old_P: the code before, of each of P pairs of codes.
        new_P: the code after.
        items_P: how many items have the pair.
    """
    old, old_P = np.unique(old_P, return_inverse=True)
    new, new_P = np.unique(new_P, return_inverse=True)
    shape = len(old), len(new)
    table = sparse.coo_matrix((items_P.astype(float), (old_P, new_P)), shape=shape).tocsr()
    with_none = sparse.hstack([table, UNMATCHED * sparse.identity(len(old))]).tocsr()
    rows, columns = min_weight_full_bipartite_matching(with_none, maximize=True)
    kept = columns < len(new)
    return int(np.asarray(table[rows[kept], columns[kept]]).sum())


def _groups(sample: pa.Table, side: str, length: int) -> NDArray[np.int64]:
    """A number for every distinct prefix of so many codes."""
    codes = sample[side].combine_chunks()
    codes_NL = np.stack([np.asarray(pc.list_element(codes, level)) for level in range(length)], axis=1)
    return np.unique(codes_NL, axis=0, return_inverse=True)[1].ravel()

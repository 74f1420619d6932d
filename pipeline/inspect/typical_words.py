"""What an item's codes stand for: by part and prefix, how many other items have it, and what their texts say.

A code has no name. The words that items with a prefix use more often than the catalogue does come closest to one. Spark
goes once over the released IDs and once over the texts; the driver gets samples.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pipeline.on_spark.delta import SparkDelta
from pipeline.on_spark.expressions import content
from schemas.semantic_id import PARTS
from schemas.tables import ITEMS, RELEASED_IDS

NEIGHBOURS = 10
EXAMPLES = 3
SAMPLE = 200  # items whose words speak for a prefix
CATALOGUE = 1000  # items whose words speak for the catalogue
WORDS = 5
COMMON = 0.2  # share of a prefix's items that use a word of its
LIFT = 1.5  # times as often as in the catalogue
WORD = re.compile(r"(?=[\w-]{3})[^\W\d_]+(?:-[^\W\d_]+)*")  # sci-fi is one
FEWEST = 3  # texts that have words in common by more than chance

Texts = dict[str, str | None]  # by item


def words_and_neighbours(tables: SparkDelta, own: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """``words``: what the item's prefixes stand for; ``neighbours``: the items of nearest codes. With texts.

    Samples are the items of the smallest hashes: the same ones every time.

    Args:
        tables: of the lake.
        own: the item's row of ``released_ids``: ``item_id`` and its parts.
    """
    others = tables.read(RELEASED_IDS).where(F.col("item_id") != own["item_id"])
    others = others.withColumns({f"{part}_codes": _agreement(part, own[part]) for part in PARTS})
    prefixes = [(part, length) for part in PARTS for length in range(1, len(own[part] or ()) + 1)]
    counted = others.agg(
        _smallest(F.lit(True), CATALOGUE).alias("catalogue"),
        *(F.count_if(_has(*prefix)).alias("{}_{}_items".format(*prefix)) for prefix in prefixes),
        *(_smallest(_has(*prefix), SAMPLE).alias("{}_{}_sample".format(*prefix)) for prefix in prefixes),
    ).first()
    assert counted is not None
    near = _nearest(others)
    samples = [counted["catalogue"], near, *(counted["{}_{}_sample".format(*prefix)] for prefix in prefixes)]
    texts = _texts(tables, others, {row["item_id"]: row["content"] for rows in samples for row in rows or ()})
    everywhere = _said(texts, counted["catalogue"])
    words = []
    for part, length in prefixes:
        sample = counted[f"{part}_{length}_sample"] or []
        words.append(
            {
                "part": part,
                "prefix": part[0] + "-".join(map(str, own[part][:length])),
                "items": counted[f"{part}_{length}_items"],
                "words": telling(_said(texts, sample), word_use(everywhere), len(counted["catalogue"] or ())),
                "examples": [{"item_id": row["item_id"], "text": texts[row["item_id"]]} for row in sample[:EXAMPLES]],
            }
        )
    shown = ["item_id", "sid", *(f"{part}_codes" for part in PARTS)]
    neighbours = [{name: row[name] for name in shown} | {"text": texts[row["item_id"]]} for row in near]
    return {"words": words, "neighbours": neighbours}


def _agreement(part: str, codes: list[int] | None) -> Column:
    """How many codes of a part, from the first on, another item has in common with these."""
    same = F.lit(0)
    for length in range(1, len(codes or ()) + 1):
        prefix = F.array(*(F.lit(code).cast("smallint") for code in (codes or ())[:length]))
        same = same + F.coalesce((F.slice(part, 1, length) == prefix).cast("int"), F.lit(0))
    return same


def _has(part: str, length: int) -> Column:
    return F.col(f"{part}_codes") >= length


def _smallest(condition: Column, most: int) -> Column:
    """``item_id`` and ``content`` of the items of a condition whose hashes are smallest, in that order."""
    return F.min_by(F.when(condition, F.struct("item_id", "content")), F.when(condition, F.col("item_hash")), most)


def _nearest(others: DataFrame) -> list[Row]:
    """Items that share the longest run of shared codes, and of those the ones whose own codes agree longest."""
    own_parts = F.col("text_codes") + F.col("image_codes")
    near = others.where(_has("shared", 1)).orderBy(F.desc("shared_codes"), F.desc(own_parts), "item_hash")
    return near.limit(NEIGHBOURS).collect()


def _texts(tables: SparkDelta, others: DataFrame, contents: Mapping[str, str]) -> Texts:
    """The released texts of some items; of those whose rows were purged since there is none."""
    if not contents:
        return {}
    wanted = others.sparkSession.createDataFrame(list(contents.items()), "item_id string, content string")
    stored = tables.read(ITEMS).where("NOT deleted")
    texts = stored.select("item_id", "text", content(F.col("text_sha"), F.col("image_sha")).alias("content"))
    found = texts.join(F.broadcast(wanted), on=["item_id", "content"], how="left_semi")
    there = {row["item_id"]: row["text"] for row in found.select("item_id", "text").toLocalIterator()}
    return dict.fromkeys(contents) | there


def _said(texts: Texts, rows: list[Row] | None) -> list[str]:
    return [text for row in rows or () if (text := texts[row["item_id"]])]


def word_use(texts: Iterable[str]) -> Counter[str]:
    """In how many texts each word occurs; English ones that only join others do not count."""
    return Counter(word for text in texts for word in set(WORD.findall(text.lower())) - ENGLISH_STOP_WORDS)


def telling(texts: Sequence[str], everywhere: Counter[str], catalogue: int) -> list[str]:
    """Words that many of the texts use and the catalogue uses less, the most telling first."""
    if len(texts) < FEWEST:
        return []
    weight = {}
    for word, count in word_use(texts).items():
        here, there = count / len(texts), (everywhere[word] + 1) / (catalogue + 1)
        if here >= COMMON and here > LIFT * there:
            weight[word] = here * math.log(here / there)
    return sorted(weight, key=lambda word: (-weight[word], word))[:WORDS]

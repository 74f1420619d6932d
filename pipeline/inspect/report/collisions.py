"""Items of different content that have the same codes, side by side."""

from typing import Any

from pyspark.sql import functions as F

from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.codebooks import first_of
from pipeline.inspect.report.subject import Subject, sampled

GROUPS = 12
ITEMS = 6  # of a group


def collisions(about: Subject, cards: Cards) -> list[dict[str, Any]]:
    """The largest groups of different contents with one ``sid``: how many ``items``, and some of them."""
    content = F.col("content")
    sizes = about.rows.groupBy("sid").agg(
        F.count("*").alias("items"), (F.min(content) != F.max(content)).alias("collide")
    )
    largest = sizes.where("collide").orderBy(F.desc("items"), "sid").limit(GROUPS).select("sid", "items").collect()
    if not largest:
        return []
    members = about.rows.where(F.col("sid").isin([row["sid"] for row in largest]))
    of_content = members.groupBy("sid", "content").agg(
        F.min_by("item_id", "item_hash").alias("item_id"), F.min(sampled()).alias("order")
    )
    items = first_of(of_content, "sid", ITEMS)
    return [
        {"sid": row["sid"], "items": row["items"], "cards": [cards.card(item) for item in items[row["sid"]]]}
        for row in largest
    ]

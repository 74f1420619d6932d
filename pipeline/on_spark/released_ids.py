"""The rows that are to be released, and how they differ from those that are."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from schemas.tables import RELEASED_IDS


def candidate_rows(current: DataFrame, ids: DataFrame, release: int) -> DataFrame:
    """The rows of ``released_ids`` that a release of one tokenizer would have.

    Args:
        current: ``item_id`` and ``content`` of the current items.
        ids: rows of ``semantic_ids`` of the tokenizer; a row that is there twice counts once.
        release: the version that the rows are first released in.

    One shuffle of ``ids`` by item and content.
    """
    joined = current.select("item_id", "content").join(ids, on=["item_id", "content"], how="inner")
    rows = joined.dropDuplicates(["item_id", "content"]).withColumn("release", F.lit(release).cast("bigint"))
    return rows.select(*RELEASED_IDS.schema.names)


def changes(standing: DataFrame, rows: DataFrame, release: int) -> DataFrame:
    """The rows of ``release_changes`` that lead from the ``standing`` rows of ``released_ids`` to ``rows``.

    An item is ``changed`` if its codes, its content or its tokenizer is another one.
    """
    old, new = (
        frame.select("item_id", F.struct("sid", "content", "tokenizer").alias(name))
        for frame, name in ((standing, "old"), (rows, "new"))
    )
    both = old.join(new, on="item_id", how="full").where(~F.col("old").eqNullSafe(F.col("new")))
    change = F.when(F.col("old").isNull(), "added").when(F.col("new").isNull(), "removed").otherwise("changed")
    return both.select(
        F.lit(release).cast("bigint").alias("release"),
        "item_id",
        change.alias("change"),
        F.col("old.sid").alias("old_sid"),
        F.col("new.sid").alias("new_sid"),
    )

"""The one definition of the current items: of every item its newest version, unless that is its deletion."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.on_spark.expressions import content, item_hash


def current_items(items: DataFrame, *columns: str) -> DataFrame:
    """``item_id`` and ``columns`` of the current items.

    Args:
        items: rows of the table ``items``, as :meth:`pipeline.on_spark.delta.SparkDelta.read` gives them.
        columns: of ``items``, ``content`` or ``item_hash``. Texts and images are large: ask where they lie instead
            (``file`` and ``position`` of located rows), or join for them.

    One shuffle of the versions' asked columns by item. Run ids order the versions, see
    :func:`pipeline.lake.run.new_run_id`.
    """
    derived = {"content": ("text_sha", "image_sha"), "item_hash": ("item_id",)}
    needed = dict.fromkeys(name for column in columns for name in derived.get(column, (column,)))
    newest = F.max_by(F.struct("deleted", *(name for name in needed if name != "item_id")), "run_id").alias("newest")
    current = items.groupBy("item_id").agg(newest).where(~F.col("newest.deleted")).select("item_id", "newest.*")
    values = {
        "content": lambda: content(F.col("text_sha"), F.col("image_sha")),
        "item_hash": lambda: item_hash(F.col("item_id")),
    }
    return current.select(
        "item_id", *(values[name]().alias(name) if name in values else name for name in columns if name != "item_id")
    )

"""What an encoder failed on is to be tried again, and IDs that were made without it are to be made anew."""

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.lake.artefacts import fingerprints, tokenizer_encoders
from pipeline.lake.run import Run
from pipeline.lake.vectors import forget_failures
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.dropping import drop
from pipeline.on_spark.expressions import content
from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS


def retry_failures(spark: SparkSession, run: Run, encoders: Mapping[str, str]) -> None:
    """Forget what ``encoders``, by modality, failed on; ``tokenize`` gives the items in question an ID again.

    IDs go first: should this be killed between the two, they are made again as they were.

    Raises:
        JobError: a tokenizer of the lake is broken.
    """
    tables = spark_delta(spark, run.lake, run.config.spark)
    items = tables.read(ITEMS).where(~F.col("deleted"))
    contents = items.withColumn("content", content(F.col("text_sha"), F.col("image_sha")))
    readers = {name: tokenizer_encoders(run.lake, name) for name in fingerprints(run.lake, "tokenizers")}

    def without(modality: str, encoder: str) -> DataFrame:
        """The IDs that lack a modality since its encoder failed."""
        failed = tables.read(VECTORS, where={"encoder": encoder}).where(F.col("fault").isNotNull())
        concerned = contents.join(failed.select(F.col("sha").alias(f"{modality}_sha")), f"{modality}_sha", "left_semi")
        of_these = F.col("tokenizer").isin([name for name, known in readers.items() if known[modality] == encoder])
        ids = tables.read(SEMANTIC_IDS).where(of_these & ~F.col(f"has_{modality}"))
        return ids.join(concerned, ["item_id", "content"], "left_semi").select(*SEMANTIC_IDS.key)

    stale = [without(modality, encoder) for modality, encoder in encoders.items()]
    drop(run, tables, SEMANTIC_IDS, reduce(DataFrame.unionByName, stale).distinct())
    forget_failures(run.lake, encoders)

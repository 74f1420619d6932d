"""What says, of a picture that is not opened, whether it is still the same: size and time of its last change.

A folder on this machine is listed by Spark's Python workers, a folder at a time; any other root by Spark itself.
"""

import re

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from pipeline.lake.storage import spark_uri
from pipeline.on_spark.folder_listing import FOLDER, ListFolders
from pipeline.on_spark.references import is_url

PATTERN = r"[][{}*?\\]"  # what Hadoop takes for a pattern in a path, unless a backslash stands before it
FEW = 5_000  # remote pictures that are named to Spark one by one; for more it reads the whole root


def with_listing(rows: DataFrame, root: str, spark: SparkSession) -> DataFrame:
    """``rows`` with ``listed_stat`` and ``image_bytes`` of the file that each names, null where none is seen there.

    Args:
        rows: with ``reference`` and ``named``, or with ``uri`` under a root that only Hadoop's connectors reach; read
            twice.
        root: of the pictures.
        spark: the session.
    """
    rows = rows.drop("image_bytes")
    return _remote(rows, root, spark) if "uri" in rows.columns else _local(rows, root)


def with_remote_contents(
    rows: DataFrame, wanted: DataFrame, root: str, max_bytes: int, spark: SparkSession
) -> DataFrame:
    """``rows`` with ``image``, the bytes of their ``uri``: null where there is no such file or it is too large.

    Args:
        rows: to be given their pictures.
        wanted: their listed ``uri`` and ``image_bytes``.
        root: of the pictures.
        max_bytes: of a picture.
        spark: the session.

    A few pictures are read one by one; for many of them all files under the root are.
    """
    uris = wanted.where(F.col("image_bytes") <= max_bytes).select("uri").distinct()
    few = [re.sub(PATTERN, r"\\\g<0>", row["uri"]) for row in uris.limit(FEW + 1).collect()]
    if not few:
        return rows
    reader = spark.read.format("binaryFile")
    if len(few) <= FEW:
        files = reader.load(few)
    else:
        files = reader.option("recursiveFileLookup", True).load(_hadoop(root)).where(F.col("length") <= max_bytes)
    pictures = files.select(F.col("path").alias("uri"), F.col("content").alias("image"))
    return rows.drop("image").join(pictures, on="uri", how="left")


def _local(rows: DataFrame, root: str) -> DataFrame:
    """Each folder that references name is listed once, as they name it.

    A URI with a query is not looked for: its file cannot be told from its spelling alone.
    """
    reference = F.col("reference")
    last = F.substring_index(reference, "/", -1)
    folder = F.left(reference, F.length(reference) - F.length(last))
    is_uri = reference.contains("://") | F.lower(reference).rlike("^(file|data):")
    decoded = F.try_url_decode(F.replace(last, F.lit("+"), F.lit("%2B")))
    name = F.when(~is_uri, last).when((folder != "") & ~reference.rlike("[?#]"), decoded)
    placed = rows.withColumns({"folder": folder, "name": name})
    folders = placed.where(F.col("named") & ~is_url(reference)).select("folder").distinct()
    listed = folders.mapInArrow(ListFolders(root), from_arrow_schema(FOLDER))
    return placed.join(listed, on=["folder", "name"], how="left").drop("folder", "name")


def _remote(rows: DataFrame, root: str, spark: SparkSession) -> DataFrame:
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(_hadoop(root))
    changed = F.concat_ws("-", F.col("length").cast("string"), F.unix_micros("modificationTime").cast("string"))
    listed = files.select(
        F.col("path").alias("uri"), changed.alias("listed_stat"), F.col("length").alias("image_bytes")
    )
    return rows.join(listed, on="uri", how="left")


def _hadoop(root: str) -> str:
    return spark_uri(root.rstrip("/"))

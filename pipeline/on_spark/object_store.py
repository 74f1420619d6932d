"""How Spark reaches an S3 store: as :mod:`pipeline.lake.object_store` says, through Hadoop's connector."""

from collections.abc import Mapping

from pyspark.sql import SparkSession

from pipeline.errors import ConfigError
from pipeline.lake.object_store import S3Store

CONNECTOR = "org.apache.hadoop.fs.s3a.S3AFileSystem"
PACKAGE = "org.apache.hadoop:hadoop-aws:3.5.0"  # of the Hadoop that pyspark brings


def reach_store(spark: SparkSession, uri: str, options: Mapping[str, str]) -> None:
    """Let a session that runs reach the S3 store that ``uri`` lies in, if it does; ``spark.hadoop`` settings win.

    Raises:
        ConfigError: the session has no connector to S3, or nothing says where the store is.
    """
    store = S3Store.of(uri, options)
    if store is None:
        return
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()  # type: ignore[union-attr]
    if hadoop.getClassByNameOrNull(CONNECTOR) is None:
        raise ConfigError(
            f"{uri}: Spark has no connector to S3: name its JARs in spark.conf, as spark.jars.packages: {PACKAGE}, or "
            "lay them on the cluster's class path"
        )
    for key, value in store.hadoop().items():
        if spark.conf.get(f"spark.hadoop.{key}", None) is None:
            hadoop.set(key, value)

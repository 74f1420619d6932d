"""How Spark reaches the object store that a lake lies in."""

from pyspark.sql import SparkSession

from pipeline.lake.storage import Lake


def reach_store(spark: SparkSession, lake: Lake) -> None:
    """Let a session that runs read and write the lake; the user's own ``spark.hadoop`` settings win."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()  # type: ignore[union-attr]
    for key, value in hadoop_settings(lake).items():
        if spark.conf.get(f"spark.hadoop.{key}", None) is None:
            hadoop.set(key, value)


def hadoop_settings(lake: Lake) -> dict[str, str]:
    """What Hadoop's S3 connector needs to reach the lake; it finds keys by itself, in the environment or a role."""
    if not lake.on_s3:
        return {}
    known = lake.store_settings()
    endpoint, region = known.get("AWS_ENDPOINT_URL"), known.get("AWS_REGION")
    found = {"fs.s3a.endpoint": endpoint, "fs.s3a.endpoint.region": region}
    found["fs.s3a.path.style.access"] = "true" if endpoint else None
    return {key: value for key, value in found.items() if value is not None}

"""The Spark session of a job, as the configuration asks for it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Source, SparkSettings
from pipeline.errors import ConfigError, JobError
from pipeline.java import find_java

LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")


@contextmanager
def spark_session(settings: SparkSettings, app: str) -> Iterator[SparkSession]:
    """A session that ends with the block.

    Raises:
        JobError: there is no Java, or the session does not start.
    """
    session = start_session(settings, app)
    try:
        yield session
    finally:
        session.stop()


def start_session(settings: SparkSettings, app: str) -> SparkSession:
    """Start Spark: our defaults, then native Delta's settings, then the user's own, which win."""
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # by spark-submit, which has started Java with its own settings
    local = settings.master.startswith("local") and not submitted
    if local:
        os.environ["JAVA_HOME"] = str(find_java())
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf: dict[str, str | int | float | bool] = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.files.maxRecordsPerFile": 20_000,  # a file is the least that a later job reads
        "spark.sql.execution.arrow.maxRecordsPerBatch": 256,  # rows carry pictures
        "spark.sql.execution.arrow.maxBytesPerBatch": 64 * 2**20,
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
    }
    if local:
        conf |= {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": 8, "spark.ui.enabled": "false"}
        conf |= {"spark.driver.host": "localhost", "spark.databricks.delta.snapshotPartitions": 2}
        conf |= {"spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_SETTINGS.as_uri()}"}
    if settings.delta == "native":
        conf |= {
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        }
    builder = SparkSession.builder.appName(app)
    if not submitted:
        builder = builder.master(settings.master)
    for key, value in (conf | settings.conf).items():
        builder = builder.config(key, str(value))
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise JobError(f"Spark did not start on {settings.master}: {error}") from error


def read_source(spark: SparkSession, source: Source, key: str, *, multi_line: bool = False) -> DataFrame:
    """The raw table that the configuration names under ``key``; CSV columns are strings unless its options say more.

    ``multi_line`` lets a quoted CSV value hold line breaks, which makes every file the work of one task.

    Raises:
        ConfigError: it is not there, or ``columns`` does not name each of its columns.
    """
    try:
        quoting: dict[str, Any] = {"multiLine": multi_line, "escape": '"'} if source.format == "csv" else {}
        frame = spark.read.format(source.format).options(**quoting | source.options).load(source.path)
    except AnalysisException as error:
        said = str(error).split("\n")[0]
        raise ConfigError(f"{key}.path: {source.path} cannot be read as {source.format}: {said}") from error
    if source.columns is None:
        return frame
    if len(source.columns) != len(frame.columns):
        found = f"{source.path} has {len(frame.columns)}"
        raise ConfigError(f"{key}.columns: {len(source.columns)} names are given, but {found} columns")
    return frame.toDF(*source.columns)


def require_columns(frame: DataFrame, wanted: dict[str, str]) -> None:
    """Check that a source has the columns that the configuration names; ``wanted`` maps key to column.

    Raises:
        ConfigError: one line for every column that is not there.
    """
    missing = [(key, column) for key, column in wanted.items() if column not in frame.columns]
    if missing:
        lines = [f"{key}: there is no column {column!r}" for key, column in missing]
        raise ConfigError("; ".join(lines) + f"; the source has {', '.join(frame.columns)}")

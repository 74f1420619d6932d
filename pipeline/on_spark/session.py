"""The Spark session of a job, as the configuration asks for it."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.accumulators import AccumulatorTCPServer
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, DoubleType, FloatType, StringType

from pipeline.config.models import Source, SparkSettings
from pipeline.errors import ConfigError, JobError
from pipeline.on_spark.java import find_java

BAD_ROW = "_corrupt_record"  # Spark's column for a line that it could not read into columns
WHOLE = 2.0**53  # up to here every whole number is a double
LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")


@contextmanager
def spark_session(settings: SparkSettings, app: str) -> Iterator[SparkSession]:
    """A session that ends with the block; blocks within it share it.

    Raises:
        JobError: there is no Java, or the session does not start.
    """
    shared = SparkSession.getActiveSession()
    if shared is not None:
        yield shared
        return
    session = start_session(settings, app)
    try:
        yield session
    finally:
        session.stop()


def start_session(settings: SparkSettings, app: str) -> SparkSession:
    """Start Spark: our defaults, then native Delta's settings, then the user's own, which win."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises, too
    AccumulatorTCPServer.handle_error = _quietly  # type: ignore[method-assign, assignment]
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


def _quietly(server: Any, request: Any, client: Any) -> None:
    """When Java dies this server would print a traceback beside the job's own message; nothing here counts with it."""


def read_source(spark: SparkSession, source: Source, key: str, *, catalogue: bool = False) -> DataFrame:
    """The raw table that the configuration names under ``key``; CSV columns are strings unless its options say more.

    A CSV ``catalogue`` has quoted values that hold line breaks, which makes every file the work of one task. Its
    last column, and that of JSON, may be :data:`BAD_ROW`: lines that could not be read into columns. A file without
    a byte is a table without columns.

    Raises:
        ConfigError: it is not there, or ``columns`` does not name each of its columns.
        JobError: a file of it is torn.
    """
    with readable_files(key):
        frame = _read(spark, source, key, catalogue=catalogue)
    names = [name for name in frame.columns if name != BAD_ROW]
    if source.columns is None or not names:
        return frame
    if len(source.columns) != len(names):
        found = f"{source.path} has {len(names)}"
        raise ConfigError(f"{key}.columns: {len(source.columns)} names are given, but {found} columns")
    renamed = [F.col(f"`{old}`").alias(new) for old, new in zip(names, source.columns, strict=True)]
    return frame.select(*renamed, *(name for name in frame.columns if name == BAD_ROW))


@contextmanager
def readable_files(key: str) -> Iterator[None]:
    """Names the file that Spark could not read in the block: torn, or of other columns or types than the others.

    Raises:
        JobError: in place of Spark's error, when that speaks of such a file.
    """
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        said = re.search(r"\[FAILED_READ_FILE[^\n]*", str(error))
        if said is None:
            raise
        causes = re.findall(r"Caused by: [\w.$]+: ([^\n]*)", str(error))
        why = f" ({causes[-1]})" if causes else ""
        raise JobError(f"{key}: {said[0]}{why} Nothing was written: mend the file, or take it away") from error


def _read(spark: SparkSession, source: Source, key: str, *, catalogue: bool) -> DataFrame:
    reader = spark.read.format(source.format)
    if source.format == "csv":
        reader = reader.options(escape='"', multiLine=catalogue, columnPruning=not catalogue, enforceSchema=False)
    reader = reader.options(**source.options | {"columnNameOfCorruptRecord": BAD_ROW})
    try:
        frame = reader.load(source.path)
        if source.format == "csv" and catalogue and frame.columns:
            frame = reader.schema(frame.schema.add(BAD_ROW, StringType())).load(source.path)
        return frame
    except AnalysisException as error:
        said = str(error).split("\n")[0]
        raise ConfigError(f"{key}.path: {source.path} cannot be read as {source.format}: {said}") from error


def key_column(frame: DataFrame, name: str) -> Column:
    """A column that holds ids, as strings: 1, '1' and 1.0 are the same id, NaN is none, broken UTF-8 shows U+FFFD.

    Ids are opaque beyond that: neither case nor white space nor Unicode's equivalent forms make two the same.
    """
    column, kind = F.col(f"`{name}`"), frame.schema[name].dataType
    if isinstance(kind, (DoubleType, FloatType)):  # a whole-number column in which a writer met a null
        number = column.cast("double")
        whole = (number == F.floor(number)) & (F.abs(number) < WHOLE)
        return F.when(whole, column.cast("bigint").cast("string")).when(~F.isnan(column), column.cast("string"))
    return text_column(column, kind)


def text_column(column: Column, kind: DataType) -> Column:
    """A column of any type as valid UTF-8, without which no row of its batch could reach Python."""
    text = column.cast("string")
    return F.make_valid_utf8(text) if isinstance(kind, (StringType, BinaryType)) else text


def require_columns(frame: DataFrame, wanted: dict[str, str]) -> None:
    """Check that a source has the columns that the configuration names; ``wanted`` maps key to column.

    Raises:
        ConfigError: one line for every column that is not there.
    """
    missing = [(key, column) for key, column in wanted.items() if column not in frame.columns]
    if missing:
        lines = [f"{key}: there is no column {column!r}" for key, column in missing]
        there = ", ".join(name for name in frame.columns if name != BAD_ROW) or "none that can be read"
        raise ConfigError("; ".join(lines) + f"; the source has {there}")

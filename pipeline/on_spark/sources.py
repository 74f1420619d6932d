"""The tables that users bring, catalogue and interactions: read as the configuration says.

A CSV is read in one way for both: quoted values may hold line breaks, which makes every file the work of one task
(``multiLine: false`` in its options spreads a large file that has none), and a row of more or fewer values than columns
is a bad row.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipeline.config.models import Source
from pipeline.errors import ConfigError, JobError, first_line
from pipeline.lake.storage import spark_uri
from pipeline.on_spark.columns import BAD_ROW, named
from pipeline.on_spark.delta_source import read_delta
from pipeline.on_spark.nanoseconds import with_timestamps
from pipeline.on_spark.object_store import reach_store

CSV: dict[str, str | bool] = {"escape": '"', "multiLine": True, "columnPruning": False, "enforceSchema": False}
PATTERNS = "*?[]{}\\"
RENAME = f"Spark takes {' '.join(PATTERNS)} in the names of files and folders for patterns: rename it"
UNESCAPED = '\\"'


def read_source(
    spark: SparkSession,
    source: Source,
    key: str,
    *,
    ids: Collection[str] = (),
    storage_options: Mapping[str, str] | None = None,
) -> DataFrame:
    """The raw table that the configuration names under ``key``.

    Args:
        spark: the session.
        source: the section under ``key``.
        key: for messages.
        ids: columns that a CSV holds as strings even if its options infer types: ``00042`` is no number.
        storage_options: of the S3 store that it lies in, if it lies in one.

    Returns:
        Columns of a CSV are strings unless its options say more. Of CSV and JSON one may be :data:`BAD_ROW`: the line,
        where it could not be read into columns. A file without a byte is a table without columns.

    Raises:
        ConfigError: it is not there or of another format, or ``columns`` does not name each of its columns.
        JobError: a file of it is torn.
    """
    with readable_files(key):
        frame = _read(spark, source, key, ids, storage_options or {})
    names = [name for name in frame.columns if name != BAD_ROW]
    if source.columns is None or not names:
        return frame
    if len(source.columns) != len(names):
        found = f"{source.path} has {len(names)}"
        raise ConfigError(f"{key}.columns: {len(source.columns)} names are given, but {found} columns")
    renamed = [named(frame, old).alias(new) for old, new in zip(names, source.columns, strict=True)]
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


def _read(
    spark: SparkSession, source: Source, key: str, ids: Collection[str], storage_options: Mapping[str, str]
) -> DataFrame:
    if set(source.path) & set(PATTERNS) and Path(source.path.removeprefix("file://")).exists():
        raise ConfigError(f"{key}.path: {source.path}: {RENAME}")
    reach_store(spark, source.path, storage_options)
    if source.format == "delta":
        return read_delta(spark, source, key, storage_options)
    reader = spark.read.format(source.format).options(**source.options).option("columnNameOfCorruptRecord", BAD_ROW)
    try:
        if source.format == "csv":
            return _read_csv(reader, source, key, ids)
        frame = reader.load(spark_uri(source.path))
    except (Py4JJavaError, PySparkException) as error:
        if (unreadable := _unreadable(source, key, error)) is None:
            raise
        raise unreadable from error
    if frame.columns == [BAD_ROW]:
        said = f"no line of {source.path} is a JSON object by itself"
        raise ConfigError(f"{key}.options: {said}; for an array or objects over several lines set multiLine: true")
    return with_timestamps(spark, frame) if source.format == "parquet" else frame


def _read_csv(reader: DataFrameReader, source: Source, key: str, ids: Collection[str]) -> DataFrame:
    given = {name.lower(): str(value) for name, value in source.options.items()}
    encoding = given.get("encoding", given.get("charset", ""))
    if given.get("multiline", "").lower() == "false" and re.match(r"utf-?_?(16|32)", encoding, re.IGNORECASE):
        raise ConfigError(f"{key}.options: lines of {encoding} are told apart only with multiLine: true, the default")
    reader = reader.options(**{name: value for name, value in CSV.items() if name.lower() not in given})
    frame = reader.load(spark_uri(source.path))
    if not frame.columns:
        return frame
    known = dict(zip(source.columns or frame.columns, frame.columns, strict=False))
    of_ids = {known.get(name) for name in ids}
    fields = [StructField(f.name, StringType()) if f.name in of_ids else f for f in frame.schema.fields]
    frame = reader.schema(StructType([*fields, StructField(BAD_ROW, StringType())])).load(spark_uri(source.path))
    return frame if given.keys() & {"escape", "quote"} else _with_unescaped(frame)


def _with_unescaped(frame: DataFrame) -> DataFrame:
    r"""Rows whose quotes are escaped by a backslash, ``"15\" vase"``, are bad ones: their values keep the quotes."""
    strings = [field.name for field in frame.schema.fields if isinstance(field.dataType, StringType)]
    texts = [named(frame, name) for name in strings if name != BAD_ROW]
    unescaped = reduce(Column.__or__, (text.startswith('"') & text.contains(UNESCAPED) for text in texts), F.lit(False))
    line = F.when(unescaped, F.concat_ws(",", *texts))
    return frame.withColumn(BAD_ROW, F.coalesce(BAD_ROW, line))


def _unreadable(source: Source, key: str, error: Exception) -> ConfigError | None:
    """What is wrong with the section, if that is what made Spark fail: a file that is torn, or a network, is not."""
    text = str(error)
    said = first_line(error)
    if isinstance(error, Py4JJavaError):
        scheme = re.search("No FileSystem for scheme[^\\n]*", text)
        if scheme is None and "Input Pattern" not in text:
            return None
        said = scheme[0] if scheme else RENAME
    elif "FAILED_READ_FILE" in text:
        return None
    elif "CHARSET" in text:
        return ConfigError(f"{key}.options.encoding: Java knows none of this name: {source.options.get('encoding')}")
    elif "OPTION" in text:
        return ConfigError(f"{key}.options: {said}")
    elif "UNABLE_TO_INFER_SCHEMA" in text:
        said = "it holds no file for Spark, which skips names that begin with _ or ."
    elif "NANOS" in text:
        said += "; write microseconds, as with coerce_timestamps='us'"
    return ConfigError(f"{key}.path: {source.path} cannot be read as {source.format}: {said}")

"""The tables that users bring, catalogue and interactions: read as the configuration says, their columns as strings."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, DoubleType, FloatType, StringType

from pipeline.config.models import Source
from pipeline.errors import ConfigError, JobError

BAD_ROW = "_corrupt_record"  # Spark's column for a line that it could not read into columns
WHOLE = 2.0**53  # up to here every whole number is a double


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

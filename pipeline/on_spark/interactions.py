"""Spark reads the log of interactions: who, what, when, with which feedback; every event once.

An event is one user, item and time. What the log says twice is one event; where it says both that it was positive and
that it was not, it was.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DateType, DoubleType, FloatType, TimestampNTZType, TimestampType
from pyspark.sql.window import Window

from pipeline.config.models import Interactions
from pipeline.errors import ConfigError, JobError, first_line
from pipeline.on_spark.columns import BAD_ROW, key_column, named, require_columns, type_of
from pipeline.on_spark.sources import read_source

EVENT = ("user_id", "item_id", "time", "label")  # what a row has to say
EARLIEST, LATEST = 631_152_000_000, 4_102_444_800_000  # the first of 1990 and of 2100, in milliseconds
DAY = 86_400_000
DATA_EXCEPTION = "22"  # SQL's class of errors: a value that an expression cannot take


def read_events(
    spark: SparkSession, settings: Interactions, storage_options: Mapping[str, str] | None = None
) -> DataFrame:
    """The rows of the log; nothing in a row is taken from a line that could not be read into columns.

    Returns:
        ``user_id``, ``item_id``, ``time`` (ms since 1970, within 1990 to 2099), ``label`` (0 or 1), ``feedback``
        (float) and ``request`` (string); null where a row does not say, the last two everywhere if the configuration
        names none. And for messages ``said``, what stands in the column of times, ``moment``, the same as ms, however
        odd, and ``bad_row``.

    Raises:
        ConfigError: the section does not fit the source.
        JobError: the source is empty.
    """
    ids = [name for name in (settings.user, settings.item, settings.request) if name]
    source = read_source(spark, settings.source, "interactions.source", ids=ids, storage_options=storage_options)
    if not source.columns:
        raise nothing_in(settings)
    columns = {"user": settings.user, "item": settings.item, "time.column": settings.time.column}
    columns |= {"request": settings.request} if settings.request else {}
    require_columns(source, {f"interactions.{key}": name for key, name in columns.items()})
    request = key_column(source, settings.request) if settings.request else F.lit(None)
    label, graded = _checked(source, "label", settings.label, F.expr), F.lit(None)
    label = F.when(~F.isnan(label.try_cast("double")), label)  # pandas' NaN says nothing, to Spark it would be true
    if settings.feedback:
        graded = _checked(source, "feedback", settings.feedback, F.expr).try_cast("float")
        graded = F.when(~F.isnan(graded) & (F.abs(graded) < float("inf")), graded)
    when, kind = named(source, settings.time.column), type_of(source, settings.time.column)
    if isinstance(kind, (DoubleType, FloatType)):  # NaN is what pandas writes where there is no time
        when = F.when(~F.isnan(when), when)
    moment = _checked(source, "time", settings.time.column, lambda _: _milliseconds(when, kind, settings.time.unit))
    said = F.left(when.cast("string"), F.lit(60))
    bad_row = F.col(BAD_ROW).isNotNull() if BAD_ROW in source.columns else F.lit(False)
    values = {
        "user_id": key_column(source, settings.user),
        "item_id": key_column(source, settings.item),
        "time": F.when((moment >= EARLIEST) & (moment < LATEST), moment),
        "label": label.cast("boolean").cast("tinyint"),
        "feedback": graded.cast("float"),
        "request": request.cast("string"),
        "said": F.when(F.trim(said) != "", said),
        "moment": moment,
    }
    whole = {name: F.when(~bad_row, value).alias(name) for name, value in values.items()}
    return source.select(*whole.values(), bad_row.alias("bad_row"))


def nothing_in(settings: Interactions) -> JobError:
    """The error for a log without a row."""
    return JobError(f"interactions.source: {settings.source.path} is empty: it has no row")


def without_repeats(events: DataFrame) -> DataFrame:
    """One row a user, item and time, with ``rows`` that said so and whether their labels ``differ``.

    The positive one stands, and of these the one with the greatest feedback.
    """
    stands = F.max(F.struct("label", "feedback", "request")).alias("event")
    differ = (F.min("label") < F.max("label")).alias("differ")
    single = events.groupBy("user_id", "item_id", "time").agg(stands, F.count("*").alias("rows"), differ)
    return single.select("user_id", "item_id", "time", "event.*", "rows", "differ")


def with_ages(events: DataFrame) -> DataFrame:
    """Events with ``age``: 1 is a user's newest. A window sorts on disk, so a bot's many events need no memory."""
    newest_first = Window.partitionBy("user_id").orderBy(F.desc("time"), F.desc("item_id"))
    return events.withColumn("age", F.row_number().over(newest_first))


@contextmanager
def explained(settings: Interactions) -> Iterator[None]:
    """Say which expression a value of the source did not fit.

    Raises:
        JobError: label or feedback failed on a value, with key, expression and cause.
    """
    try:
        yield
    except PySparkException as error:
        if not (error.getSqlState() or "").startswith(DATA_EXCEPTION):
            raise
        key, expression = _failed(settings, error)
        raise JobError(
            f"interactions.{key}: {expression!r} fails on a row: {first_line(error)} Compare text with text, as in "
            "clicked = 'yes', and cast the columns of a CSV, which are strings: try_cast(rating AS double) > 3"
        ) from error


def _failed(settings: Interactions, error: PySparkException) -> tuple[str, str]:
    """Key and text of the expression that Spark says has failed; the label, where it does not say."""
    parts = [context.fragment() for context in error.getQueryContext() or ()]
    if settings.feedback and any(part and part in settings.feedback and part not in settings.label for part in parts):
        return "feedback", settings.feedback
    return "label", settings.label


def _checked(source: DataFrame, key: str, text: str, parse: Callable[[str], Column]) -> Column:
    """The column that ``parse`` makes of what the configuration says.

    Raises:
        ConfigError: it is no expression, or none over the columns of the source.
    """
    try:
        column = parse(text)
        source.select(column)
    except Exception as error:
        raise ConfigError(f"interactions.{key}: {text!r}: {first_line(error)}") from error
    return column


def _milliseconds(column: Column, kind: DataType | None, unit: str) -> Column:
    """Of dates (midnight in UTC) and timestamps the type says what they are, of anything else the unit."""
    if isinstance(kind, DateType):
        return F.unix_date(column).cast("bigint") * DAY
    if unit == "timestamp" or isinstance(kind, (TimestampType, TimestampNTZType)):
        return F.unix_millis(column.try_cast("timestamp"))
    return (column.try_cast("double") * (1000 if unit == "s" else 1)).try_cast("bigint")

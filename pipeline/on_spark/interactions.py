"""Spark reads the log of interactions: who, what, when, with which feedback; every event once.

An event is one user, item and time. What the log says twice is one event; where it says both that it was positive and
that it was not, it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce

from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Interactions, Time
from pipeline.errors import ConfigError, JobError
from pipeline.lake.run import Run
from pipeline.on_spark.sources import key_column, read_source, require_columns

EVENT = ("user_id", "item_id", "time", "label")  # what a row has to say
YEAR = 31_556_952_000  # milliseconds
EARLIEST, LATEST = YEAR, 130 * YEAR  # 1971 and 2100: seconds taken for milliseconds lie before, the other way after


def read_events(spark: SparkSession, settings: Interactions) -> DataFrame:
    """``user_id``, ``item_id``, ``time`` (ms since 1970), ``label`` (0 or 1), ``feedback`` (float) and ``request``
    (string); null where a row does not say, the last two everywhere if the configuration names none."""
    source = read_source(spark, settings.source, "interactions.source")
    columns = {"user": settings.user, "item": settings.item, "time.column": settings.time.column}
    columns |= {"request": settings.request} if settings.request else {}
    require_columns(source, {f"interactions.{key}": name for key, name in columns.items()})
    request = key_column(source, settings.request) if settings.request else F.lit(None)
    label, graded = _checked(source, "label", settings.label, F.expr), F.lit(None)
    if settings.feedback:
        graded = _checked(source, "feedback", settings.feedback, F.expr).try_cast("float")
        graded = F.when(~F.isnan(graded) & (F.abs(graded) < float("inf")), graded)
    return source.select(
        key_column(source, settings.user).alias("user_id"),
        key_column(source, settings.item).alias("item_id"),
        _checked(source, "time", settings.time.column, lambda _: _milliseconds(settings.time)).alias("time"),
        label.cast("boolean").cast("tinyint").alias("label"),
        graded.cast("float").alias("feedback"),
        request.cast("string").alias("request"),
    )


def check_events(run: Run, events: DataFrame, settings: Interactions) -> None:
    """Count the rows, and what they do not say.

    Raises:
        JobError: no time could be read, or half of them lie outside of 1971 to 2100, as those of another unit do.
    """
    missing = [F.count_if(F.col(name).isNull()).alias(name) for name in EVENT]
    complete = reduce(Column.__and__, (F.col(name).isNotNull() for name in EVENT))
    middle = F.percentile_approx("time", 0.5).alias("middle")
    (found,) = events.agg(F.count("*").alias("rows"), F.count_if(complete).alias("whole"), *missing, middle).collect()
    run.count(rows_in=found["rows"], incomplete=found["rows"] - found["whole"])
    run.metrics["missing"] = {name: found[name] for name in EVENT}
    when = f"interactions.time: column {settings.time.column!r} with unit {settings.time.unit!r}"
    if found["rows"] and found["time"] == found["rows"]:
        raise JobError(f"{when}: no value could be read as a time")
    if found["middle"] is not None and not EARLIEST <= found["middle"] < LATEST:
        year = 1970 + found["middle"] // YEAR
        raise JobError(f"{when}: times lie about the year {year:,}; is it the right unit (s, ms or timestamp)?")


def without_repeats(events: DataFrame) -> DataFrame:
    """One row a user, item and time, with ``rows`` that said so and whether their labels ``differ``.

    The positive one stands, and of these the one with the greatest feedback.
    """
    stands = F.max(F.struct("label", "feedback", "request")).alias("event")
    differ = (F.min("label") < F.max("label")).alias("differ")
    single = events.groupBy("user_id", "item_id", "time").agg(stands, F.count("*").alias("rows"), differ)
    return single.select("user_id", "item_id", "time", "event.*", "rows", "differ")


@contextmanager
def explained(settings: Interactions) -> Iterator[None]:
    """Say which expression a value of the source did not fit."""
    try:
        yield
    except (ArithmeticException, DateTimeException, NumberFormatException) as error:
        said = str(error).splitlines()[0]
        expressions = f"{settings.label!r}" + (f" or feedback {settings.feedback!r}" if settings.feedback else "")
        raise JobError(
            f"interactions.label: {expressions} fails on a row: {said}. "
            "Columns of a CSV are strings; cast them, as in try_cast(rating AS double) > 3"
        ) from error


def _checked(source: DataFrame, key: str, text: str, parse: Callable[[str], Column]) -> Column:
    """The column that ``parse`` makes of what the configuration says.

    Raises:
        ConfigError: it is no expression, or none over the columns of the source.
    """
    try:
        column = parse(text)
        source.select(column)
    except Exception as error:
        raise ConfigError(f"interactions.{key}: {text!r}: {_said(error)}") from error
    return column


def _said(error: Exception) -> str:
    """The first line of an engine's message that says anything."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _milliseconds(time: Time) -> Column:
    column = F.col(f"`{time.column}`")
    if time.unit == "timestamp":
        return F.unix_millis(column.try_cast("timestamp"))
    return (column.try_cast("double") * (1000 if time.unit == "s" else 1)).try_cast("bigint")

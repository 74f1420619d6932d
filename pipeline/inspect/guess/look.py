"""Looks at the sources of a newcomer as a job would read them, and writes a configuration file for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, NumericType, StringType, StructType

from pipeline.config.file import describe
from pipeline.config.models import Source
from pipeline.errors import ConfigError
from pipeline.inspect.guess.catalogue import guess_catalogue
from pipeline.inspect.guess.columns import Profile
from pipeline.inspect.guess.files import Reading, guess_reading
from pipeline.inspect.guess.log import guess_log
from pipeline.inspect.guess.settings import Guesses, written
from pipeline.on_spark.columns import BAD_ROW, key_column, named
from pipeline.on_spark.sources import read_source

ROWS = 1000  # that a guess is made from
LONGEST = {StringType: 2000, BinaryType: 32_768, ArrayType: 8192}  # of a value


@dataclass(frozen=True)
class Seen:
    """A source with the first values of its columns, and what each is taken for."""

    path: str
    rows: int
    columns: list[Profile]
    roles: dict[str, str]


def readings(source: str, interactions: str | None, target: Path) -> tuple[Reading, Reading | None]:
    """How a catalogue and, if there is one, a log are to be read; needs no Spark.

    Raises:
        ConfigError: ``target`` is there already, or a source is not.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already and stays as it is: name another file with --to")
    return guess_reading(source), None if interactions is None else guess_reading(interactions)


def write_configuration(
    spark: SparkSession,
    source: str,
    reading: Reading,
    interactions: str | None,
    log_reading: Reading | None,
    target: Path,
) -> list[Seen]:
    """Guess a configuration for a catalogue and, if there is one, a log, and write it to ``target``.

    Raises:
        ConfigError: a source cannot be read.
    """
    frame = _read(spark, source, reading, "SOURCE")
    columns = profiles(frame)
    found = guess_catalogue(columns, source)
    items, repeated = _counts(frame, found.id)
    seen = [Seen(source, items, columns, found.roles)]
    log = None
    if interactions is not None and log_reading is not None:
        events = _read(spark, interactions, log_reading, "--interactions")
        log_columns = profiles(events)
        ids = next((profile.strings for profile in columns if profile.name == found.id), [])
        log = (interactions, log_reading, guess_log(log_columns, ids, found.id))
        seen.append(Seen(interactions, events.count(), log_columns, log[2].roles))
    guesses = Guesses(source, reading, found, items, repeated, log)
    with target.open("x", encoding="utf-8") as file:
        file.write(written(guesses, target))
    return seen


def profiles(frame: DataFrame) -> list[Profile]:
    """The columns of a source with their first :data:`ROWS` values, long ones cut.

    Fields of a column are columns of their own, ``meta.title``. Left out are rows that could not be read into columns.
    """
    fields = list(_fields(frame.schema))
    whole = frame.where(F.col(BAD_ROW).isNull()) if BAD_ROW in frame.columns else frame
    cut = (_cut(named(frame, ".".join(path)), kind).alias(".".join(path)) for path, kind in fields)
    rows = whole.select(*cut).limit(ROWS).collect()
    return [
        Profile(".".join(path), kind.simpleString(), [row[n] for row in rows], path)
        for n, (path, kind) in enumerate(fields)
    ]


def _fields(schema: StructType, within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], DataType]]:
    for field in schema:
        if isinstance(field.dataType, StructType):
            yield from _fields(field.dataType, (*within, field.name))
        elif field.name != BAD_ROW:
            yield (*within, field.name), field.dataType


def _read(spark: SparkSession, path: str, reading: Reading, key: str) -> DataFrame:
    section = {"path": path, "format": reading.format, "options": reading.options, "columns": reading.columns}
    try:
        source = Source.model_validate(section)
    except ValidationError as error:
        raise ConfigError(f"{key}: {'; '.join(describe(error, Source))}") from error
    frame = read_source(spark, source, key)
    if not [name for name in frame.columns if name != BAD_ROW]:
        raise ConfigError(f"{key}: {path} has no column that can be read as {reading.format}")
    return frame


def _cut(column: Column, kind: DataType) -> Column:
    longest = next((most for of, most in LONGEST.items() if isinstance(kind, of)), None)
    if longest is None:
        return column
    if isinstance(kind, StringType):
        return F.left(F.make_valid_utf8(column), F.lit(longest))
    if isinstance(kind, ArrayType):
        simple = isinstance(kind.elementType, (NumericType, StringType))
        return F.slice(column if simple else column.cast("array<string>"), 1, longest)
    return F.substring(column, 1, longest)


def _counts(frame: DataFrame, item_id: str | None) -> tuple[int, int]:
    """Rows, and rows whose id an earlier one has."""
    if item_id is None:
        return frame.count(), 0
    key = key_column(frame, item_id)
    found = frame.agg(F.count("*").alias("rows"), F.count(key).alias("ids"), F.count_distinct(key).alias("all")).first()
    assert found is not None  # an aggregate without groups has one row
    return found["rows"], found["ids"] - found["all"]

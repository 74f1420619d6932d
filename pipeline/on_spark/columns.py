"""Columns of the tables that users bring: found by name, ids and texts as strings by one rule for all of them."""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, DecimalType, DoubleType, FloatType, MapType, StringType, StructType

from pipeline.errors import ConfigError

BAD_ROW = "_hisam_bad_row"  # Spark's column for a line that it could not read into columns
WHOLE = 2.0**53  # up to here every whole number is a double
DIGEST_BYTES = 16  # of a UUID or an MD5 sum


def named(frame: DataFrame, name: str) -> Column:
    """The column of this name or, where there is none, the field that its dots lead to: ``image.bytes``."""
    parts = [name] if name in frame.columns else name.split(".")
    return F.col(".".join(f"`{part.replace('`', '``')}`" for part in parts))


def type_of(frame: DataFrame, name: str) -> DataType | None:
    """The type of :func:`named`; ``None`` where there is no such column."""
    if name in frame.columns:
        return frame.schema[name].dataType
    kind: DataType = frame.schema
    for part in name.split("."):
        if not isinstance(kind, StructType) or part not in kind.names:
            return None
        kind = kind[part].dataType
    return kind


def key_column(frame: DataFrame, name: str) -> Column:
    """A column that holds ids, as strings: 1, '1', 1.0 and the decimal 1.000 are the same id, NaN is none.

    Sixteen bytes that are no text are 32 hexadecimal digits, other broken UTF-8 shows U+FFFD. Ids are opaque beyond
    that: neither case nor white space nor leading zeros nor Unicode's equivalent forms make two the same.
    """
    column, kind = named(frame, name), type_of(frame, name)
    text = column.cast("string")
    if isinstance(kind, (DoubleType, FloatType)):  # a whole-number column in which a writer met a null
        number = column.cast("double")
        whole = (number == F.floor(number)) & (F.abs(number) < WHOLE)
        return F.when(whole, column.cast("bigint").cast("string")).when(~F.isnan(column), text)
    if isinstance(kind, DecimalType) and kind.scale > 0:
        return F.rtrim(F.rtrim(text, F.lit("0")), F.lit("."))
    if isinstance(kind, BinaryType):
        no_text = ~F.is_valid_utf8(text) | text.rlike(r"[\x00-\x1f]")
        digest = (F.octet_length(column) == DIGEST_BYTES) & no_text
        return F.when(digest, F.lower(F.hex(column))).otherwise(text_column(column, kind))
    return text_column(column, kind)


def text_column(column: Column, kind: DataType | None) -> Column:
    """A column of any type as valid UTF-8, without which no row of its batch could reach Python."""
    text = column.cast("string")
    return F.make_valid_utf8(text) if isinstance(kind, (StringType, BinaryType)) else text


def require_columns(frame: DataFrame, wanted: Mapping[str, str]) -> None:
    """Check that a source has the columns that the configuration names; ``wanted`` maps key to column.

    Raises:
        ConfigError: with every column that is not there, or that is a structure where one value is wanted.
    """
    faults = []
    for key, name in wanted.items():
        kind = type_of(frame, name)
        if kind is None:
            faults.append(f"{key}: there is no column {name!r}")
        elif isinstance(kind, (StructType, MapType)) and not key.startswith("catalog.text"):
            faults.append(f"{key}: column {name!r} is a {kind.typeName()}; name one value of it, as in {name}.field")
    if faults:
        raise ConfigError("; ".join(faults) + f"; the source has {', '.join(_names(frame)) or 'none that can be read'}")


def _names(frame: DataFrame) -> list[str]:
    """The columns of a source, and the fields of those that are structures."""
    names = []
    for field in frame.schema.fields:
        inner = field.dataType.names if isinstance(field.dataType, StructType) else []
        names += [f"{field.name}.{name}" for name in inner] or [field.name]
    return [name for name in names if name != BAD_ROW]

"""Vectors that the catalogue brings in place of an encoder: read from their columns, checked, put into ``vectors``.

What an item is known by is then the hash of its vector rather than of its text or picture.

D is the width of a modality's vectors.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, DoubleType, FloatType, NumericType

from pipeline.config.encoders import VectorColumn
from pipeline.errors import ConfigError
from pipeline.on_spark.columns import named, type_of
from pipeline.on_spark.expressions import VECTOR_SHA
from schemas.tables import VECTORS

if TYPE_CHECKING:  # workers that read vectors need no lake
    from pipeline.lake.run import Run
    from pipeline.on_spark.delta import SparkDelta

ITEM_BYTES = {"float16": 2, "float32": 4, "float64": 8}
MOST = 65_536  # numbers of a vector, as the configuration bounds them, too

Columns = Mapping[str, VectorColumn]  # by modality


class VectorFault(Exception):
    """A vector that cannot be used; the message says why."""


@dataclass(frozen=True)
class VectorReader:
    """Reads the vectors of one column on Spark's Python workers."""

    column: str
    dtype: str | None
    dim: int

    def numbers(self, values: pa.Array) -> list[NDArray[Any] | None]:
        """The numbers of every row as the source has them, NaN for one that is missing; none where nothing stands."""
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            return [None if data is None else self._unpacked(data) for data in values.to_pylist()]
        flat, offsets = values.values.to_numpy(zero_copy_only=False), values.offsets.to_numpy()
        rows = zip(offsets[:-1], offsets[1:], values.is_valid().to_pylist(), strict=True)
        return [flat[start:stop] if valid else None for start, stop, valid in rows]

    def canonical(self, given_D: NDArray[Any]) -> NDArray[np.float32]:
        """The vector as ``vectors`` holds it: float16 numbers, of length one, since directions alone count.

        The same bits on every machine, since the sum is exact whatever its order.

        Raises:
            VectorFault: of the wrong width, not finite, or zero.
        """
        if given_D.dtype == np.uint8:
            raise VectorFault(f"{self.column}: {len(given_D)} bytes are no whole number of {self.dtype}")
        if len(given_D) != self.dim:
            count = f"more than {MOST:,}" if len(given_D) > MOST else f"{len(given_D):,}"
            raise VectorFault(f"{self.column}: the width of the vector is {count}, of its encoder's {self.dim:,}")
        x_D = given_D.astype(np.float64)
        largest = np.abs(x_D).max()
        if not np.isfinite(largest):
            raise VectorFault(f"{self.column}: a number of the vector is missing or not finite")
        if largest == 0:
            raise VectorFault(f"{self.column}: the vector is zero")
        x_D /= largest  # whose square neither vanishes nor overflows
        x_D /= math.sqrt(math.fsum((x_D * x_D).tolist()))
        return x_D.astype(np.float16).astype(np.float32) + np.float32(0)  # a zero without a sign

    def _unpacked(self, data: bytes) -> NDArray[Any]:
        assert self.dtype is not None
        whole = len(data) % ITEM_BYTES[self.dtype] == 0
        return np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<") if whole else np.uint8)


def vector_sha(x_D: NDArray[np.float32]) -> str:
    """The name of a vector. By its first letter it is no text's or picture's, so no encoder is given it as work."""
    return VECTOR_SHA + hashlib.sha256(x_D.astype("<f4").tobytes()).hexdigest()


def vector_inputs(source: DataFrame, columns: Columns) -> dict[str, Column]:
    """By modality the vectors of a source: arrays of floats or bytes; null where nothing stands.

    Longer ones than any encoder makes are cut, so that a batch of them fits in memory.

    Raises:
        ConfigError: a column holds neither, or bytes whose ``dtype`` is not given.
    """
    inputs = {}
    for modality, settings in columns.items():
        column, kind = named(source, settings.column), type_of(source, settings.column)
        assert kind is not None  # require_columns has seen it
        if isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType):
            if not isinstance(kind.elementType, (FloatType, DoubleType)):
                column = column.cast("array<double>")
            inputs[modality] = F.when(F.size(column) > 0, F.slice(column, 1, MOST + 1))
        elif isinstance(kind, BinaryType):
            if settings.dtype is None:
                raise ConfigError(
                    f"encoders.{modality}.dtype: column {settings.column!r} holds bytes, so say what they are: "
                    f"{', '.join(ITEM_BYTES)}"
                )
            most = (MOST + 1) * ITEM_BYTES[settings.dtype]
            inputs[modality] = F.when(F.octet_length(column) > 0, F.substring(column, 1, most))
        else:
            raise ConfigError(
                f"encoders.{modality}.column: column {settings.column!r} holds {kind.simpleString()}, but vectors are "
                "arrays of numbers, or bytes with their dtype: write them as Parquet or JSON lines"
            )
    return inputs


def vector_hash(column: Column, kind: DataType | None) -> Column:
    """What shows, in the JVM, that the vector of a row is another: 64 hexadecimal digits, or two hashes of an array."""
    if isinstance(kind, BinaryType):
        return F.sha2(column, 256)
    hashes = (F.hex(F.xxhash64(*salt, column)) for salt in ((), (F.lit("again"),)))
    return F.when(column.isNotNull(), F.concat_ws(":", F.size(column), *hashes))


def vector_bytes(column: Column, kind: DataType | None) -> Column:
    """About how many bytes a vector has."""
    size = F.octet_length(column) if isinstance(kind, BinaryType) else F.size(column) * 8
    return F.coalesce(F.when(column.isNotNull(), size), F.lit(0)).cast("bigint")


def hashed_settings(columns: Columns) -> list[str]:
    """What of the configuration decides what becomes of a vector; nothing where there is no column of vectors."""
    return [json.dumps([m, each.fingerprint(m), each.dim]) for m, each in columns.items()]


def vector_readers(raw: DataFrame, tables: "SparkDelta | None", columns: Columns) -> dict[str, VectorReader]:
    """By modality what reads its vectors. Their width is that of those which the lake has under the same name and
    version, else the configured one, else the most frequent of the source.

    Args:
        raw: as :func:`pipeline.on_spark.raw_items.raw_items` gives it, with ``text_vector`` or ``image_vector``.
        tables: of the lake, if there is one.
        columns: of the configuration.

    Raises:
        ConfigError: the lake's vectors have another width than is configured.
    """
    return {m: VectorReader(each.column, each.dtype, _width(m, raw, tables, each)) for m, each in columns.items()}


def _width(modality: str, raw: DataFrame, tables: "SparkDelta | None", settings: VectorColumn) -> int:
    stored = _stored_width(tables, settings.fingerprint(modality)) if tables else None
    if stored is not None and settings.dim not in (None, stored):
        raise ConfigError(
            f"encoders.{modality}.dim: {settings.dim:,} is given, but the lake has vectors of {settings.name} "
            f"{settings.version} of {stored:,} numbers: give encoders.{modality} another version"
        )
    known = settings.dim if stored is None else stored
    if known is not None:
        return known
    column, kind = F.col(f"{modality}_vector"), raw.schema[f"{modality}_vector"].dataType
    size = F.floor(F.octet_length(column) / ITEM_BYTES[str(settings.dtype)]) if kind == BinaryType() else F.size(column)
    widths = raw.select(size.alias("width")).where(column.isNotNull()).groupBy("width").count()
    usual = widths.orderBy(F.desc("count"), F.desc("width")).first()
    return int(usual["width"]) if usual else 0


def _stored_width(tables: "SparkDelta", encoder: str) -> int | None:
    stored = tables.read(VECTORS, where={"encoder": encoder}).where("vector IS NOT NULL")
    first = stored.select(F.size("vector").alias("width")).first()
    return int(first["width"]) if first else None


def append_vectors(tables: "SparkDelta", written: DataFrame, columns: Columns, run: "Run") -> None:
    """Commit the vectors of rows that become items, those that ``vectors`` lacks; ``run.counts`` has ``vectors``.

    Args:
        tables: of the lake.
        written: rows of :data:`pipeline.on_spark.prepare.PREPARED`.
        columns: of the configuration.
        run: of ``extract``.

    To be called before the items are committed: a run that is killed in between leaves vectors that nothing refers to,
    and an item never lacks its vector.
    """
    lacking = []
    for modality, settings in columns.items():
        encoder = settings.fingerprint(modality)
        known = tables.read(VECTORS, where={"encoder": encoder}).select("sha")
        given = written.select(F.col(f"{modality}_sha").alias("sha"), F.col(f"{modality}_vector").alias("vector"))
        once = given.where("vector IS NOT NULL").dropDuplicates(["sha"])
        lacking.append(once.join(known, on="sha", how="left_anti").withColumn("encoder", F.lit(encoder)))
    rows = reduce(DataFrame.unionByName, lacking).withColumn("fault", F.lit(None).cast("string"))
    staged = tables.stage(VECTORS, rows)
    run.count(vectors=staged.rows.count())
    tables.commit(staged)
    run.wrote(VECTORS)

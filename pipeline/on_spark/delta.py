"""Spark's access to the lake's Delta tables, in two settings with one interface.

*Native*: delta-spark reads and writes, as its users do. *Embedded*, which needs nothing but PyPI: Spark writes
Parquet to a folder of the table that no reader knows, delta-rs commits those files in one transaction, and
Spark reads the files that delta-rs lists. Both leave the same standard Delta tables.
"""

import json
import uuid
from collections.abc import Mapping
from functools import reduce
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from pyarrow import fs
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructField, StructType
from typing_extensions import override

from pipeline.config.models import SparkSettings
from pipeline.errors import ConfigError
from pipeline.lake.storage import Lake
from schemas.tables import Table

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class SparkDelta(Protocol):
    """Reading and writing a lake's tables from Spark."""

    def read(self, table: Table, *, where: Mapping[str, str] | None = None, version: int | None = None) -> DataFrame:
        """``table`` at a version, or the newest; ``where`` picks partitions. A table that is not there is empty."""

    def append(self, table: Table, rows: DataFrame) -> None:
        """Append ``rows`` in one commit, none at all when there is no row; creates the table."""

    def overwrite(self, table: Table, rows: DataFrame, *, where: Mapping[str, str] | None = None) -> None:
        """Put ``rows`` in place of the table, or of the partitions that ``where`` picks, in one commit."""


def spark_delta(spark: SparkSession, lake: Lake, settings: SparkSettings) -> SparkDelta:
    """The access that the configuration asks for.

    Raises:
        ConfigError: native Delta on S3 without a log store; Spark's own one loses commits there.
    """
    on_s3 = lake.uri.startswith(("s3://", "s3a://"))
    if settings.delta == "native" and on_s3 and not any("logStore" in key for key in settings.conf):
        raise ConfigError(
            "spark.delta: native Delta on S3 needs a log store that can commit safely, such as "
            "spark.delta.logStore.s3a.impl: io.delta.storage.S3DynamoDBLogStore; or set spark.delta: embedded"
        )
    return NativeDelta(spark, lake) if settings.delta == "native" else EmbeddedDelta(spark, lake)


def spark_schema(table: Table) -> StructType:
    """The declared schema as Spark's."""
    return from_arrow_schema(table.schema)


def conform(table: Table, rows: DataFrame) -> DataFrame:
    """``rows`` with the declared columns in order and of the declared types; a forbidden null or value fails."""

    def column(field: StructField) -> Column:
        value = F.col(field.name).cast(field.dataType)
        if field.nullable:
            return value
        said = f"{table.name}: column '{field.name}' has a null"
        if field.name in table.allowed:
            value = F.when(value.isin(*table.allowed[field.name]), value)
            said += " or a value that is not declared"
        fault = F.raise_error(F.lit(said)).cast(field.dataType)
        return F.coalesce(value, fault).alias(field.name)

    return rows.select(*map(column, spark_schema(table)))


class NativeDelta(SparkDelta):
    """delta-spark; its JARs come from ``spark.jars``, ``spark.jars.packages`` or the cluster's class path."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self._spark, self._lake = spark, lake

    @override
    def read(self, table: Table, *, where: Mapping[str, str] | None = None, version: int | None = None) -> DataFrame:
        if not self._lake.exists(table):
            return self._spark.createDataFrame([], spark_schema(table))
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(spark_uri(self._lake.table_uri(table)))
        return reduce(lambda f, pair: f.where(F.col(pair[0]) == pair[1]), (where or {}).items(), frame)

    @override
    def append(self, table: Table, rows: DataFrame) -> None:
        self._lake.create(table)
        if not rows.isEmpty():
            self._write(table, rows, "append", {})

    @override
    def overwrite(self, table: Table, rows: DataFrame, *, where: Mapping[str, str] | None = None) -> None:
        self._lake.create(table)
        condition = " AND ".join(f"{column} = '{value}'" for column, value in (where or {}).items())
        self._write(table, rows, "overwrite", {"replaceWhere": condition} if condition else {})

    def _write(self, table: Table, rows: DataFrame, mode: str, options: Mapping[str, str]) -> None:
        writer = conform(table, rows).write.format("delta").mode(mode).options(**options)
        writer.partitionBy(*table.partition).save(spark_uri(self._lake.table_uri(table)))


class EmbeddedDelta(SparkDelta):
    """Spark for the data, delta-rs for the transaction log."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self._spark, self._lake = spark, lake

    @override
    def read(self, table: Table, *, where: Mapping[str, str] | None = None, version: int | None = None) -> DataFrame:
        schema = spark_schema(table)
        empty = self._spark.createDataFrame([], schema)
        if not self._lake.exists(table):
            return empty
        delta = self._lake.delta(table, version)
        in_file = StructType([field for field in schema if field.name not in table.partition])
        frames = []
        for partition in _partitions(pa.table(delta.get_add_actions(flatten=True)), table, where or {}):
            root = spark_uri(self._lake.table_uri(table))
            files = [f"{root}/{file}" for file in self._lake.files(table, partition, delta.version())]
            frame = self._spark.read.schema(in_file).parquet(*files)
            frames.append(frame.withColumns({column: F.lit(value) for column, value in partition.items()}))
        return reduce(DataFrame.unionByName, frames).select(*schema.names) if frames else empty

    @override
    def append(self, table: Table, rows: DataFrame) -> None:
        self._commit(table, rows, "append", {})

    @override
    def overwrite(self, table: Table, rows: DataFrame, *, where: Mapping[str, str] | None = None) -> None:
        self._commit(table, rows, "overwrite", where or {})

    def _commit(self, table: Table, rows: DataFrame, mode: str, where: Mapping[str, str]) -> None:
        self._lake.create(table)
        staged = f"staged-{uuid.uuid4().hex}"
        actions: list[AddAction] = []
        try:
            writer = conform(table, rows).write.partitionBy(*table.partition)
            writer.parquet(spark_uri(f"{self._lake.table_uri(table)}/{staged}"))
            actions = self._add_actions(table, staged)
        finally:
            if not actions:
                self._lake.delete(f"{table.name}/{staged}")
        # From here on nothing is deleted: a commit that seems to fail may have been made, and owns the files.
        if actions or mode == "overwrite":
            self._lake.delta(table).create_write_transaction(
                actions,
                mode,
                table.schema,
                partition_by=list(table.partition) or None,
                partition_filters=[(column, "=", value) for column, value in where.items()] or None,
            )

    def _add_actions(self, table: Table, staged: str) -> list[AddAction]:
        filesystem, base = self._lake.filesystem, self._lake.path(table.name)
        actions = []
        for info in filesystem.get_file_info(fs.FileSelector(f"{base}/{staged}", recursive=True)):
            if info.extension != "parquet":
                continue
            with filesystem.open_input_file(info.path) as file:
                count = pq.read_metadata(file).num_rows
            if count == 0:
                continue
            path = info.path[info.path.index(staged) :]
            actions.append(
                AddAction(
                    path=path,
                    size=info.size,
                    partition_values=_partition_values(path),
                    modification_time=int(info.mtime.timestamp() * 1000),
                    data_change=True,
                    stats=json.dumps({"numRecords": count}),
                )
            )
        return actions


def _partition_values(path: str) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in path.split("/")[1:-1]]
    return {name: None if value == NULL_PARTITION else unquote(value) for name, _, value in pairs}


def _partitions(actions: pa.Table, table: Table, where: Mapping[str, str]) -> list[dict[str, str]]:
    """The distinct partition values of a table's files that ``where`` lets through."""
    if not actions.num_rows:
        return []
    if not table.partition:
        return [{}]
    columns = [f"partition.{name}" for name in table.partition]
    rows = actions.select(columns).group_by(columns).aggregate([]).sort_by([(c, "ascending") for c in columns])
    found = [{name: row[f"partition.{name}"] for name in table.partition} for row in rows.to_pylist()]
    return [values for values in found if all(values[name] == value for name, value in where.items())]


def spark_uri(uri: str) -> str:
    """A URI as Hadoop's connectors spell it."""
    return uri.replace("s3://", "s3a://", 1) if uri.startswith("s3://") else uri

"""Spark's access to the lake's Delta tables, in two settings with one interface.

*Embedded*, which needs nothing but PyPI: Spark writes Parquet to a folder of the table that no reader knows, and
:mod:`pipeline.lake.commit` makes those files rows; Spark reads the files that the log lists. *Native*: delta-spark
reads and writes, as its users do. Both leave the same standard Delta tables.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructField, StructType
from typing_extensions import override

from pipeline.config.models import SparkSettings
from pipeline.errors import ConfigError
from pipeline.lake.commit import METADATA, RUNS, commit, fenced, overtaken, replace_files, staged_files, staging_folder
from pipeline.lake.storage import Lake, spark_uri
from pipeline.on_spark.object_store import reach_store
from schemas.tables import Table

TRANSACTION = "spark.databricks.delta.write"  # where delta-spark finds the transaction that a commit is to carry
LOG_STORE = "spark.delta.logStore.s3a.impl"
SAFE_LOG_STORES = ("io.delta.storage.S3DynamoDBLogStore",)  # the others say so themselves, or lost commits when tried
LOCATED = ("file", "position")  # of a row: its file, relative to the table, and its place in that file


@dataclass(frozen=True)
class Staged:
    """Rows that are written and not yet committed, to be looked at before they are."""

    table: Table
    rows: DataFrame
    folder: str | None


class SparkDelta(Protocol):
    """Reading and writing a lake's tables from Spark."""

    def read(
        self,
        table: Table,
        *,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
        files: Collection[str] | None = None,
        located: bool = False,
    ) -> DataFrame:
        """``table`` at a version, or the newest; ``where`` picks partitions. A table that is not there is empty.

        With ``located`` every row has :data:`LOCATED` besides. With ``files`` rows of others may be left out.
        """

    def stage(self, table: Table, rows: DataFrame) -> Staged:
        """Write ``rows`` where no reader sees them; give them to :meth:`commit` or :meth:`discard`."""

    def commit(
        self, staged: Staged, *, overwrite: Mapping[str, str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Make staged rows rows of their table in one commit, in place of the partitions that ``overwrite`` picks.

        ``overwrite={}`` is the whole table, ``None`` appends; nothing to append is no commit.
        """

    def discard(self, staged: Staged) -> None:
        """Drop what was staged."""

    def append(self, table: Table, rows: DataFrame) -> None:
        """Append ``rows`` in one commit, none at all when there is no row; creates the table."""
        self.commit(self.stage(table, rows))

    def overwrite(self, table: Table, rows: DataFrame, *, where: Mapping[str, str] | None = None) -> None:
        """Put ``rows`` in place of the table, or of the partitions that ``where`` picks, in one commit."""
        self.commit(self.stage(table, rows), overwrite=where or {})

    def delete(self, table: Table, keys: DataFrame) -> None:
        """Delete the rows whose key is in ``keys``, in one commit that rewrites the files which hold any."""


def spark_delta(spark: SparkSession, lake: Lake, settings: SparkSettings) -> SparkDelta:
    """The access that the configuration asks for; the session learns where the lake's object store is.

    Raises:
        ConfigError: native Delta on S3 without a log store that is known to be safe; Spark's own loses commits.
    """
    log_store = settings.conf.get(LOG_STORE, spark.conf.get(LOG_STORE, None))
    if settings.delta == "native" and lake.store is not None and log_store not in SAFE_LOG_STORES:
        raise ConfigError(
            "spark.delta: native Delta on S3 needs a log store that is known to lose no commit: set spark.conf: "
            f"{LOG_STORE}: {SAFE_LOG_STORES[0]}, or spark.delta: embedded, which needs none"
        )
    reach_store(spark, lake.uri, lake.storage_options)
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


def _located(table: Table, frame: DataFrame) -> DataFrame:
    """``frame``, just read from files of ``table``, with :data:`LOCATED`."""
    path = F.regexp_extract("_metadata.file_path", f"^.*/{table.name}/(.*)$", 1)
    return frame.select("*", path.alias("file"), F.col("_metadata.row_index").alias("position"))


class NativeDelta(SparkDelta):
    """delta-spark; its JARs come from ``spark.jars``, ``spark.jars.packages`` or the cluster's class path."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self._spark, self._lake = spark, lake

    @override
    def read(
        self,
        table: Table,
        *,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
        files: Collection[str] | None = None,
        located: bool = False,
    ) -> DataFrame:
        if located or files is not None:  # which delta-spark cannot; our tables have no deletion vectors
            return EmbeddedDelta(self._spark, self._lake).read(
                table, where=where, version=version, files=files, located=located
            )
        if not self._lake.exists(table):
            return empty(self._spark, table, located=False)
        reader = self._spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(spark_uri(self._lake.table_uri(table)))
        return reduce(lambda f, pair: f.where(F.col(pair[0]) == pair[1]), (where or {}).items(), frame)

    @override
    def stage(self, table: Table, rows: DataFrame) -> Staged:
        return Staged(table, conform(table, rows).persist(StorageLevel.DISK_ONLY), None)

    @override
    def commit(
        self, staged: Staged, *, overwrite: Mapping[str, str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        table = staged.table
        with self._fenced(table):
            if overwrite is not None or not staged.rows.isEmpty():
                condition = " AND ".join(f"{column} = '{value}'" for column, value in (overwrite or {}).items())
                options = {"replaceWhere": condition} if condition else {}
                options |= {"userMetadata": json.dumps({METADATA: dict(metadata)})} if metadata else {}
                writer = staged.rows.write.format("delta").mode("append" if overwrite is None else "overwrite")
                writer.options(**options).partitionBy(*table.partition).save(spark_uri(self._lake.table_uri(table)))
        self.discard(staged)

    @override
    def delete(self, table: Table, keys: DataFrame) -> None:
        same = " AND ".join(f"kept.{name} = gone.{name}" for name in table.key)
        target = f"delta.`{spark_uri(self._lake.table_uri(table))}`"
        with self._fenced(table):
            merge = f"MERGE INTO {target} AS kept USING {{gone}} AS gone ON {same} WHEN MATCHED THEN DELETE"
            self._spark.sql(merge, gone=keys.select(*table.key).distinct())

    @contextmanager
    def _fenced(self, table: Table) -> Iterator[None]:
        """As :func:`pipeline.lake.commit.fenced`; Spark makes no commit whose transaction version is not a new one."""
        writer, conf = self._lake.writer, self._spark.conf
        with fenced(self._lake, table) as (delta, _):
            assert writer is not None
            number = max(writer.versions.start, (delta.transaction_version(RUNS) or 0) + 1)
            conf.set(f"{TRANSACTION}.txnAppId", RUNS)
            conf.set(f"{TRANSACTION}.txnVersion", str(number))
            try:
                yield
            finally:
                conf.unset(f"{TRANSACTION}.txnAppId")
                conf.unset(f"{TRANSACTION}.txnVersion")
            if (self._lake.delta(table).transaction_version(RUNS) or 0) >= writer.versions.stop:
                raise overtaken(self._lake, table, writer)

    @override
    def discard(self, staged: Staged) -> None:
        staged.rows.unpersist()


class EmbeddedDelta(SparkDelta):
    """Spark for the data, delta-rs for the transaction log."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self._spark, self._lake = spark, lake

    @override
    def read(
        self,
        table: Table,
        *,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
        files: Collection[str] | None = None,
        located: bool = False,
    ) -> DataFrame:
        frames = []
        if self._lake.exists(table):
            actions = pa.table(self._lake.delta(table, version).get_add_actions(flatten=True))
            if files is not None:
                actions = actions.filter(ds.field("path").isin(pa.array(sorted(files), pa.string())))
            for partition, paths in _by_partition(actions, table, where or {}):
                frames.append(self._read_files(table, partition, paths, located=located))
        return reduce(DataFrame.unionByName, frames) if frames else empty(self._spark, table, located=located)

    def _read_files(self, table: Table, partition: Mapping[str, str], files: list[str], *, located: bool) -> DataFrame:
        root = spark_uri(self._lake.table_uri(table))
        stored = from_arrow_schema(table.stored)
        frame = self._spark.read.schema(stored).parquet(*(f"{root}/{file}" for file in files))
        frame = _located(table, frame) if located else frame
        types = {field.name: field.dataType for field in spark_schema(table)}
        frame = frame.withColumns({name: F.lit(value).cast(types[name]) for name, value in partition.items()})
        return frame.select(*table.schema.names, *(LOCATED if located else ()))

    @override
    def stage(self, table: Table, rows: DataFrame) -> Staged:
        folder = staging_folder()
        uri = spark_uri(f"{self._lake.table_uri(table)}/{folder}")
        try:
            conform(table, rows).write.partitionBy(*table.partition).parquet(uri)
        except BaseException:
            self._lake.delete(f"{table.name}/{folder}")
            raise
        return Staged(table, self._spark.read.schema(spark_schema(table)).parquet(uri), folder)

    @override
    def commit(
        self, staged: Staged, *, overwrite: Mapping[str, str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        assert staged.folder is not None
        files = staged_files(self._lake, staged.table, staged.folder)
        information = {METADATA: json.dumps(dict(metadata))} if metadata else None
        # What fails from here on deletes nothing: a commit that seems to fail may have been made, and owns the files.
        commit(self._lake, staged.table, files, overwrite=overwrite, metadata=information)

    @override
    def delete(self, table: Table, keys: DataFrame) -> None:
        keys = keys.select(*table.key)
        files = files_of(self.read(table, located=True), keys)
        if files:
            staged = self.stage(table, self.read(table, files=files).join(keys, on=list(table.key), how="left_anti"))
            assert staged.folder is not None
            replace_files(self._lake, table, files, staged_files(self._lake, table, staged.folder))

    @override
    def discard(self, staged: Staged) -> None:
        self._lake.delete(f"{staged.table.name}/{staged.folder}")


def files_of(located: DataFrame, keys: DataFrame) -> list[str]:
    """The files of ``located`` rows that hold one of ``keys`` in the columns of that name; only these are read."""
    holding = located.select(*keys.columns, "file").join(keys, on=keys.columns, how="left_semi").select("file")
    return [row["file"] for row in holding.distinct().collect()]


def empty(spark: SparkSession, table: Table, *, located: bool) -> DataFrame:
    """``table`` without a row; Spark's optimiser knows that, and plans nothing of what is joined with it."""
    frame = spark.createDataFrame([], spark_schema(table)).limit(0)
    return frame.withColumns({"file": F.lit(""), "position": F.lit(0).cast("bigint")}) if located else frame


def _by_partition(actions: pa.Table, table: Table, where: Mapping[str, str]) -> list[tuple[dict[str, str], list[str]]]:
    """The files of every partition that ``where`` lets through, in order."""
    found: dict[tuple[str, ...], list[str]] = {}
    columns = [actions[f"partition.{name}"].to_pylist() for name in table.partition]
    for path, *values in zip(actions["path"].to_pylist(), *columns, strict=True):
        found.setdefault(tuple(map(str, values)), []).append(path)
    named = [
        (dict(zip(table.partition, values, strict=True)), sorted(files)) for values, files in sorted(found.items())
    ]
    return [each for each in named if all(each[0][name] == str(value) for name, value in where.items())]

"""A Delta table as a source: delta-spark reads it where the session has it, else Spark reads the files of its log."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipeline.config.models import Source
from pipeline.errors import ConfigError, first_line
from pipeline.lake.object_store import S3Store
from pipeline.lake.storage import spark_uri

NATIVE = "set spark.delta: native, with delta-spark's JARs"
NAME = "_hisam_file"
UNDERSTOOD = {"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint", "columnMapping", "deletionVectors"}


def read_delta(spark: SparkSession, source: Source, key: str, storage_options: Mapping[str, str]) -> DataFrame:
    """The table's newest version, or the one that the option ``versionAsOf`` names.

    Raises:
        ConfigError: there is no table, or it has features that only delta-spark reads.
    """
    if "DeltaSparkSessionExtension" in (spark.conf.get("spark.sql.extensions", "") or ""):
        try:
            return spark.read.format("delta").options(**source.options).load(spark_uri(source.path))
        except AnalysisException as error:
            raise ConfigError(f"{key}.path: {source.path} cannot be read as delta: {first_line(error)}") from error
    return read_log(spark, source, key, storage_options)


def read_log(spark: SparkSession, source: Source, key: str, storage_options: Mapping[str, str]) -> DataFrame:
    """:func:`read_delta` without delta-spark: delta-rs lists files, schema and partition values.

    Raises:
        ConfigError: there is no table, or it, or an option, has what delta-spark alone reads.
    """
    others = sorted(source.options.keys() - {"versionAsOf"})
    if others:
        raise ConfigError(f"{key}.options: only delta-spark knows {others[0]}: take it out, or {NATIVE}")
    version = source.options.get("versionAsOf")
    store = S3Store.of(source.path, storage_options)
    options = store.delta_rs() if store else None
    try:
        table = DeltaTable(source.path, version=None if version is None else int(version), storage_options=options)
    except (DeltaError, OSError, ValueError) as error:
        raise ConfigError(f"{key}.path: {source.path} cannot be read as delta: {first_line(error)}") from error
    unread = next(_unread_features(table), None)
    if unread is not None:
        raise ConfigError(f"{key}: {source.path} has {unread}, which only delta-spark reads: {NATIVE}")
    return _read_files(spark, table, source.path.rstrip("/"))


def _unread_features(table: DeltaTable) -> Iterator[str]:
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        yield "column mapping"
    features = set(table.protocol().reader_features or ())
    if "deletionVectors" in features and any(
        batch.num_rows for batch in map(pa.record_batch, table.deletion_vectors())
    ):
        yield "deletion vectors"
    yield from sorted(features - UNDERSTOOD)
    names = [uri.rsplit("/", 1)[-1] for uri in table.file_uris()]
    if table.metadata().partition_columns and len(set(names)) < len(names):  # of a table that was converted
        yield "files of one name in several partitions"


def _read_files(spark: SparkSession, table: DeltaTable, root: str) -> DataFrame:
    """Partition values come from the log, by the name of the file; what folders are called means nothing to Delta."""
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    partition = list(table.metadata().partition_columns)
    stored = StructType([field for field in schema.fields if field.name not in partition])
    actions = pa.table(table.get_add_actions(flatten=True))
    files = [unquote(path) for path in actions["path"].to_pylist()]  # the log has them as URLs
    if not files:
        return spark.createDataFrame([], schema)
    places = (file if "://" in file else f"{root}/{file}" for file in files)
    frame = spark.read.schema(stored).option("__globPaths__", False).parquet(*sorted(map(spark_uri, places)))
    if not partition:
        return frame
    names = [file.rsplit("/", 1)[-1] for file in files]
    columns = [map(_spelled, actions[f"partition.{name}"].to_pylist()) for name in partition]
    strings = StructType([StructField(name, StringType()) for name in (NAME, *partition)])
    values = spark.createDataFrame(list(zip(names, *columns, strict=True)), strings)
    types = {field.name: field.dataType for field in schema.fields}
    values = values.withColumns({name: F.col(f"`{name}`").cast(types[name]) for name in partition})
    found = frame.select("*", F.col("_metadata.file_name").alias(NAME)).join(F.broadcast(values), on=NAME)
    return found.select(*(f"`{name}`" for name in schema.names))


def _spelled(value: Any) -> str | None:
    return None if value is None else str(value)

"""A Delta table as a source of Spark without delta-spark: files, schema and partition values come from its log."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from pipeline.config.models import Source
from pipeline.errors import ConfigError
from pipeline.on_spark.delta_source import read_log

pytestmark = pytest.mark.spark


def read(spark: SparkSession, folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    source = Source(path=str(folder), format="delta", options=options)
    return sorted((tuple(row) for row in read_log(spark, source, "catalog.source", {}).collect()), key=str)


def test_the_rows_are_those_of_the_newest_version(spark: SparkSession, tmp_path: Path) -> None:
    day = dt.date(2025, 1, 1)
    rows = [("1", "a b", day, 1), ("2", "x%y [1]", day, 2), ("3", "\u00fc", None, 3), ("4", None, day, None)]
    names = ["id", "kind", "day", "count"]
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    for place, partition in (("plain #1%", None), ("parted \u00fc", ["kind", "day"])):
        folder = tmp_path / place
        write_deltalake(str(folder), table.slice(0, 2), partition_by=partition)
        write_deltalake(str(folder), table.slice(2), mode="append")
        assert read(spark, folder) == sorted(rows, key=str)
        DeltaTable(str(folder)).delete("id = '1'")
        assert read(spark, folder) == sorted(rows[1:], key=str)
        assert read(spark, folder, versionAsOf=0) == rows[:2]


def test_what_is_no_table_or_needs_delta_spark_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"catalog.source.path: .*none cannot be read as delta"):
        read(spark, tmp_path / "none")
    folder = tmp_path / "mapped"
    write_deltalake(str(folder), pa.table({"id": ["1"]}))
    with pytest.raises(ConfigError, match=r"catalog\.source\.options: only delta-spark knows timestampAsOf"):
        read(spark, folder, timestampAsOf="2025-01-01")
    log = folder / "_delta_log" / f"{0:020}.json"
    mapping = '"configuration":{"delta.columnMapping.mode":"name"}'
    log.write_text(log.read_text().replace('"configuration":{}', mapping))
    with pytest.raises(ConfigError, match=r"has column mapping, which only delta-spark reads: set spark\.delta"):
        read(spark, folder)
    folder = tmp_path / "converted"
    write_deltalake(str(folder), pa.table({"id": ["1", "2"], "p": ["a", "b"]}), partition_by=["p"])
    log = folder / "_delta_log" / f"{0:020}.json"
    for file in folder.glob("p=*/*.parquet"):
        file.rename(file.with_name("part-0.parquet"))
        log.write_text(log.read_text().replace(file.name, "part-0.parquet"))
    with pytest.raises(ConfigError, match="has files of one name in several partitions, which only delta-spark reads"):
        read(spark, folder)


@pytest.mark.slow
@pytest.mark.native_delta
def test_deletion_vectors_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    place = f"delta.`{tmp_path / 'rows'}`"
    spark.sql(f"CREATE TABLE {place} (id INT) USING delta TBLPROPERTIES ('delta.enableDeletionVectors' = true)")
    spark.range(10).selectExpr("cast(id AS int) AS id").coalesce(1).write.format("delta").mode("append").save(
        str(tmp_path / "rows")
    )
    assert len(read(spark, tmp_path / "rows")) == 10
    spark.sql(f"DELETE FROM {place} WHERE id = 3")
    with pytest.raises(ConfigError, match="has deletion vectors, which only delta-spark reads"):
        read(spark, tmp_path / "rows")

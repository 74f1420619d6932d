"""Rows of a table are taken away by key."""

from pyspark import StorageLevel
from pyspark.sql import DataFrame

from pipeline.lake.run import Run
from pipeline.on_spark.delta import SparkDelta
from schemas.tables import Table


def drop(run: Run, tables: SparkDelta, table: Table, rows: DataFrame) -> None:
    """Delete the rows of ``table`` that have the key of one of ``rows``, in one commit, or none where there are none.

    Files that hold such a row are rewritten. ``run.counts`` has how many there were, under the table's name, which is a
    phase of the run.
    """
    with run.phase(table.name):
        run.read(table)
        keys = rows.select(*table.key).persist(StorageLevel.DISK_ONLY)
        count = keys.count()
        if count:
            tables.delete(table, keys)
            run.wrote(table)
        keys.unpersist()
    run.count(**{table.name: count})

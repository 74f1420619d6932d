"""What the terminal is spared, and how far Spark says that it has come."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from py4j import java_gateway
from pyspark.sql import SparkSession

from pipeline.lake.progress import Done
from pipeline.on_spark.session import _tasks_done, quiet_py4j


def test_what_py4j_logs_when_java_dies_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet_py4j()
    for file in (java_gateway.__file__, __file__):
        record = logging.LogRecord("root", logging.INFO, file, 1, "sent from %s", (file,), None)
        logging.getLogger().handle(record)
    java_gateway.logger.error("a traceback")
    assert [record.getMessage() for record in caplog.records] == [f"sent from {__file__}"]


@pytest.mark.spark
def test_tasks_of_a_job_that_runs_are_counted(spark: SparkSession) -> None:
    assert _tasks_done(spark) is None
    sleepy = spark.range(0, 10, 1, 10).selectExpr("java_method('java.lang.Thread', 'sleep', 400L)")
    seen: list[Done | None] = []
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(sleepy.collect)
        while not job.done():
            seen.append(_tasks_done(spark))
    told = [done for done in seen if done is not None]
    assert {(done.total, done.unit) for done in told} == {(10, "tasks")}
    assert sorted(done.done for done in told) == [done.done for done in told]
    assert told[0].done < told[-1].done

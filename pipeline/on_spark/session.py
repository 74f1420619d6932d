"""The Spark session of a job, as the configuration asks for it."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.accumulators import AccumulatorTCPServer
from pyspark.sql import SparkSession

from pipeline.config.models import SparkSettings
from pipeline.errors import JobError
from pipeline.lake.phases import SPARK_START
from pipeline.lake.progress import Done, bars, for_machines
from pipeline.lake.run import Run
from pipeline.on_spark.java import find_java
from pipeline.on_spark.java_classes import reading_options
from pipeline.on_spark.nanoseconds import NANOS_AS_LONG

JAVA_OPTIONS = "spark.driver.extraJavaOptions"
LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")


@contextmanager
def spark_for(run: Run) -> Iterator[SparkSession]:
    """The session of a job: what its start takes is a phase of the run, whose lines tell of Spark's tasks.

    Raises:
        JobError: as :func:`spark_session`.
    """
    with ExitStack() as until_end:
        with run.phase(SPARK_START):
            session = until_end.enter_context(spark_session(run.config.spark, f"hisam {run.job}"))
        with run.progress.of(partial(_tasks_done, session)):
            yield session


def _tasks_done(session: SparkSession) -> Done | None:
    """Of the stages that run now."""
    tracker = session.sparkContext.statusTracker()
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    done = sum(stage.numCompletedTasks for stage in stages if stage)
    total = sum(stage.numTasks for stage in stages if stage)
    return Done(done, total, "tasks") if total else None


@contextmanager
def spark_session(settings: SparkSettings, app: str) -> Iterator[SparkSession]:
    """A session that ends with the block; blocks within it share it.

    Raises:
        JobError: there is no Java, or the session does not start.
    """
    shared = SparkSession.getActiveSession()
    if shared is not None:
        yield shared
        return
    session = start_session(settings, app)
    try:
        yield session
    except KeyboardInterrupt:
        with suppress(Py4JError, OSError):  # where Java is gone, too
            session.sparkContext.setLogLevel("OFF")  # else every task that is cut short says so
        raise
    finally:
        session.stop()


def start_session(settings: SparkSettings, app: str) -> SparkSession:
    """Start Spark: our defaults, then native Delta's settings, then the user's own, which win.

    Raises:
        JobError: Java, or the master, does not start it.
    """
    quiet_py4j()
    AccumulatorTCPServer.handle_error = _quietly  # type: ignore[method-assign, assignment]
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # by spark-submit, which has started Java with its own settings
    local = settings.master.startswith("local") and not submitted
    if local:
        os.environ["JAVA_HOME"] = str(find_java())
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf: dict[str, str | int | float | bool] = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        NANOS_AS_LONG: "true",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",  # user=00042 is no number
        "spark.sql.legacy.javaCharsets": "true",  # encodings that Java knows: windows-1252, GBK, Shift_JIS
        "spark.sql.files.maxRecordsPerFile": 20_000,  # a file is the least that a later job reads
        "spark.sql.execution.arrow.maxRecordsPerBatch": 256,  # rows carry pictures
        "spark.sql.execution.arrow.maxBytesPerBatch": 64 * 2**20,
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.showConsoleProgress": str(bars()).lower(),
        # Else Java notes for every call on a column or a frame which line made it: nearly half of all that it is asked.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.sql.dataFrameQueryContext.enabled": "false",
    }
    if local:
        conf |= {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": 8, "spark.ui.enabled": "false"}
        conf |= {"spark.driver.host": "localhost", "spark.databricks.delta.snapshotPartitions": 2}
    if settings.delta == "native":
        conf |= {
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        }
    builder = SparkSession.builder.appName(app)
    if not submitted:
        builder = builder.master(settings.master)
    conf |= settings.conf
    if local:  # the user's options come after ours, and win
        level = "off" if for_machines() else "error"
        log = f"-Dlog4j2.configurationFile={LOG_SETTINGS.as_uri()} -Dhisam.spark.log={level}"
        given = str(conf.get(JAVA_OPTIONS, ""))
        conf[JAVA_OPTIONS] = f"{log} {reading_options(given)} {given}".strip()
    for key, value in conf.items():
        builder = builder.config(key, str(value))
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise JobError(f"Spark did not start on {settings.master}: {error}") from error


def quiet_py4j() -> None:
    """It logs tracebacks of what it raises, too: on its own loggers, and, when Java dies, on the root logger."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_not_of_py4j)  # a filter of the root logger sees what is logged there, nothing else


def _not_of_py4j(record: logging.LogRecord) -> bool:
    return Path(record.pathname).parent.name != "py4j"


def _quietly(server: Any, request: Any, client: Any) -> None:
    """When Java dies this server would print a traceback beside the job's own message; nothing here counts with it."""

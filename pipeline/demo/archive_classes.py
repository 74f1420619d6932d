"""Makes the archive of Java's classes for this installation, by extracting a small generated shop, twice.

``python -m pipeline.demo.archive_classes`` takes about a minute and writes some 190 MB: once an installation, and again
after another Java or pyspark came.
"""

import secrets
import sys
import tempfile
from pathlib import Path

from pyspark import SparkContext

from pipeline.config.file import load_config
from pipeline.config.models import SparkSettings
from pipeline.demo.generator import generate
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.on_spark.extract import extract
from pipeline.on_spark.java_classes import ARCHIVE, writing_options
from pipeline.on_spark.session import JAVA_OPTIONS, spark_session

QUICKLY = "-XX:TieredStopAtLevel=1"  # compiled; this Java has no second night


def make_archive(archive: Path = ARCHIVE) -> None:
    """Run Spark for the classes that it loads, and put what Java wrote of them in the place of an older archive.

    Raises:
        JobError: Java does not start, or writes none: one that brings no archive of its own cannot.
        OSError: the folder cannot be written to.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(f"{archive.name}.{secrets.token_hex(4)}.part")
    settings = SparkSettings(conf={JAVA_OPTIONS: f"{QUICKLY} {writing_options(draft)}"})
    try:
        try:
            with tempfile.TemporaryDirectory() as folder:
                generate(Path(folder), items=20, users=2, seed=0)
                config = load_config(Path(folder) / "config.yaml")
                with spark_session(settings, "classes of Java") as spark:
                    for _ in range(2):
                        with Run("extract", config) as run:
                            extract(spark, run)
        finally:
            ended_well = _end_java()
        if not ended_well or not draft.is_file():
            raise JobError("Java wrote no archive of its classes: has it one of its own, lib/server/classes.jsa?")
        draft.replace(archive)
    finally:
        draft.unlink(missing_ok=True)


def _end_java() -> bool:
    """Whether Java ended well. It writes when it ends, which it does once nothing can come from here any more."""
    gateway = SparkContext._gateway
    if gateway is None:
        return False
    gateway.shutdown()
    gateway.proc.stdin.close()
    SparkContext._gateway = SparkContext._jvm = None
    return bool(gateway.proc.wait() == 0)


if __name__ == "__main__":
    try:
        make_archive()
    except (JobError, OSError) as error:
        sys.exit(f"there is no archive of Java's classes, and Spark starts without one: {error}")

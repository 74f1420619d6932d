"""The archive of Java's classes: made, read, and done without where it does not fit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys
from pathlib import Path
from pipeline.config.models import SparkSettings
from pipeline.on_spark import java_classes
from pipeline.on_spark.session import JAVA_OPTIONS, spark_session
java_classes.ARCHIVE = Path(sys.argv[1])
with spark_session(SparkSettings(conf={JAVA_OPTIONS: sys.argv[2]}), "test") as spark:
    print(spark.range(3).count())
"""


def started(archive: Path, options: str = "") -> subprocess.CompletedProcess[str]:
    """A session of its own that reads ``archive``."""
    command = [sys.executable, "-c", START, archive, options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.spark
def test_java_reads_the_archive_that_it_wrote_and_does_without_another(tmp_path: Path) -> None:
    archive = tmp_path / "a folder" / "classes.jsa"
    make = (
        f"from pathlib import Path; from pipeline.demo.archive_classes import *; make_archive(Path({str(archive)!r}))"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", make], timeout=300, check=True)
        assert [file.name for file in archive.parent.iterdir()] == [archive.name]
    only_with_it = "-Xshare:on"
    assert started(archive, only_with_it).stdout == "3\n"
    assert started(tmp_path / "none", only_with_it).stdout == "3\n"  # with that of Java itself
    archive.unlink()
    archive.write_bytes(os.urandom(100_000))
    assert started(archive, only_with_it).returncode
    done = started(archive)
    assert (done.stdout, done.stderr) == ("3\n", "")

"""Lakes of several sizes, each built here and measured in a process of its own, whose peak memory is of that alone."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from pyspark.sql import SparkSession

from pipeline.config.models import Config
from pipeline.on_spark.session import spark_session


def measured_apart(
    module: str,
    sizes: Mapping[str, int],
    config_of: Callable[[Path, str], Config],
    build: Callable[[SparkSession, Config, int], None],
    heap: str,
    folder: Path | None,
) -> dict[str, dict[str, Any]]:
    """By name of a size what ``python -m MODULE --heap HEAP --measured HOME`` prints last, and ``built_seconds``.

    Args:
        module: the benchmark.
        sizes: by name what ``build`` is to make.
        config_of: the configuration of a lake in a folder, with Spark's heap.
        build: fills it.
        heap: of Spark, as in ``4g``.
        folder: where lakes are; they are deleted.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, size in sizes.items():
        home = Path(tempfile.mkdtemp(dir=folder))
        try:
            clock, config = time.perf_counter(), config_of(home, heap)
            with spark_session(config.spark, module) as spark:
                build(spark, config, size)
            built = time.perf_counter() - clock
            line = [sys.executable, "-m", module, "--heap", heap, "--measured", str(home)]
            said = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            found[name] = json.loads(said) | {"built_seconds": built}
            typer.echo(f"{name}: {found[name]}")
        finally:
            shutil.rmtree(home)
    return found

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


def config_of(folder: Path, heap: str) -> Config:
    """A lake without a catalogue to read, whose gates let random codes pass."""
    return Config.model_validate(
        {
            "lake": str(folder / "lake"),
            "catalog": {"source": {"path": str(folder), "format": "csv"}, "id": "id", "text": "{t}"},
            "gates": {"max_collision_rate": 1, "min_coverage": 0, "max_without_image": 1},
            "spark": {"conf": {"spark.driver.memory": heap, "spark.local.dir": str(folder / "shuffle")}},
        }
    )


def measured_apart(
    module: str,
    sizes: Mapping[str, int],
    build: Callable[[SparkSession, Config, int], None],
    heap: str,
    folder: Path | None,
) -> dict[str, dict[str, Any]]:
    """By name of a size what ``python -m MODULE --heap HEAP --measured HOME`` prints last, and ``built_seconds``.

    Args:
        module: the benchmark.
        sizes: by name how much ``build`` is to make.
        build: fills a lake of :func:`config_of`.
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

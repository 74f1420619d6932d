"""What publish's figures cost when many items share their codes: each step over generated rows of ``released_ids``.

Sizes of groups of equal codes follow a power law, so a few tuples have thousands of items and most have one. Each step
runs ``turns`` times; the table has medians of wall time. Spark makes the rows, so their number is bounded by the disk.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import typer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from pipeline.config.models import SparkSettings
from pipeline.on_spark.expressions import item_hash
from pipeline.on_spark.gate_figures import code_use, collisions, drift, measure, totals
from pipeline.on_spark.released_ids import changes
from pipeline.on_spark.session import spark_session
from schemas.semantic_id import Layout
from schemas.tables import RELEASED_IDS

LAYOUT = Layout(3, 2, 2, 256)
EXPONENT = 1.2
TOKENIZER = "0" * 16
MOST = 2**50  # number of a group: all seven codes are used


def released_rows(spark: SparkSession, items: int, exponent: float) -> DataFrame:
    """Rows of ``released_ids`` whose tuples are numbered by a power law; every item has a content of its own."""
    group = F.least(F.floor(F.pow(1 - F.rand(0), -1 / (exponent - 1))).cast("double"), F.lit(float(MOST)))
    numbered = spark.range(items).select("id", group.cast("bigint").alias("tuple"))
    codes = F.transform(
        F.sequence(F.lit(0), F.lit(LAYOUT.slots - 1)),
        lambda i: F.pmod(F.floor(F.col("tuple") / F.pow(F.lit(256.0), i)), F.lit(256)).cast("smallint"),
    )
    named = numbered.select(F.format_string("item-%09d", "id").alias("item_id"), "tuple", codes.alias("codes"))
    spans = {part: F.slice("codes", span.start + 1, span.stop - span.start) for part, span in LAYOUT.spans().items()}
    return named.select(
        "item_id",
        item_hash(F.col("item_id")).alias("item_hash"),
        F.substring(F.sha2("item_id", 256), 1, 32).alias("content"),
        F.lit(TOKENIZER).alias("tokenizer"),
        F.lit(1).cast("bigint").alias("release"),
        *(codes.alias(part) for part, codes in spans.items()),
        F.concat(F.lit("s"), F.concat_ws("-", "codes")).alias("sid"),
        F.lit(True).alias("has_text"),
        F.lit(True).alias("has_image"),
    ).select(*RELEASED_IDS.schema.names)


def seconds(step: Callable[[], object], turns: int) -> list[float]:
    """Wall time of every turn."""
    found = []
    for _ in range(turns):
        began = time.perf_counter()
        step()
        found.append(time.perf_counter() - began)
    return found


def main(items: int = 1_000_000, exponent: float = EXPONENT, turns: int = 3) -> None:
    """Print the table and write ``results/collisions.json``."""
    settings = SparkSettings()
    with tempfile.TemporaryDirectory() as folder, spark_session(settings, "collisions") as spark:
        released_rows(spark, items, exponent).orderBy("item_id").write.parquet(f"{folder}/rows")
        rows = spark.read.parquet(f"{folder}/rows")
        current = rows.select("item_id", "content")
        steps: dict[str, Callable[[], object]] = {
            "totals and digest": lambda: totals(rows),
            "collisions and uniqueness of IDs": lambda: collisions(rows),
            "use of codes by level": lambda: code_use(rows, LAYOUT),
            "every figure of the IDs alone": lambda: measure(rows, totals(rows), LAYOUT),
            "drift against as many released IDs": lambda: drift(rows, rows, current),
            "changes against as many released IDs": lambda: changes(rows, rows, 2).count(),
        }
        times = {name: seconds(step, turns) for name, step in steps.items()}
        found: dict[str, Any] = {"items": items, "exponent": exponent, "seconds": times}
        found |= measure(rows, totals(rows), LAYOUT)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "collisions.json").write_text(json.dumps(found, indent=1) + "\n")
    shape = f"{items:,} items, {found['items_sharing_codes'] / items:.1%} share their codes, at most "
    title = f"{shape}{found['largest_group']:,}; {found['items_sharing_an_id']} share an ID"
    table = Table("step", "wall, s", "least to greatest", title=title, title_justify="left")
    for name, turn in times.items():
        table.add_row(name, f"{statistics.median(turn):.2f}", f"{min(turn):.2f} to {max(turn):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

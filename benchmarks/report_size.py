"""How large the page of ``hisam report`` is, and how long it takes, as a catalogue grows: lakes of generated items.

An item has a text of its own, a picture of noise, which compresses worst, out of :data:`POOL`, a small vector of each,
and random codes. All are released, then 1 % change, and a process of its own makes the report of what a publish would
do. Shown are its seconds, the sizes of ``index.html`` and ``report.json``, and the peak memory of its Python driver.
"""

import io
import json
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from benchmarks.lakes import config_of, measured_apart
from benchmarks.trials import RESULTS
from pipeline.config.models import Config
from pipeline.inspect.report.gather import gather
from pipeline.inspect.report.write import write
from pipeline.lake.run import Run
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.expressions import content, item_hash
from pipeline.on_spark.publish import publish
from pipeline.on_spark.session import spark_session
from schemas.semantic_id import PARTS
from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS
from tokenizer.base.artefact import Description
from tokenizer.base.config import TokenizerConfig

ENCODERS = {"text": "a" * 16, "image": "b" * 16}
TOKENIZER = "c" * 16
LEVELS = TokenizerConfig(shared_levels=3, text_levels=2, image_levels=2, codebook_size=256)
CHANGED = 100  # one item of so many
POOL = 64  # pictures
SIDE = 96  # of a picture
WORDS = 40  # of a text
VOCABULARY = 5000
WIDTH = 8  # numbers of a vector
MOST_BYTES = 15_000_000


def build(spark: SparkSession, config: Config, items: int) -> None:
    """A released lake of so many items, of which 1 % has changed since and has its new IDs."""
    rng = np.random.default_rng(0)
    pool = spark.createDataFrame([(n, _noise(rng)) for n in range(POOL)], "picture bigint, image binary")
    _night(spark, config, spark.range(items), pool, "first")
    with Run("publish", config) as run:
        described = Description(
            fingerprint=TOKENIZER, encoders=ENCODERS, text_dim=WIDTH, image_dim=WIDTH, config=LEVELS, versions={}
        )
        run.lake.write_json(f"tokenizers/{TOKENIZER}/config.json", described.model_dump(mode="json"))
        publish(spark, run, TOKENIZER)
    changed = spark.range(max(1, items // CHANGED)).withColumn("id", F.col("id") * CHANGED)
    _night(spark, config, changed, pool, "second")


def _night(spark: SparkSession, config: Config, numbers: DataFrame, pool: DataFrame, night: str) -> None:
    words = (_number(F.lit(night), F.lit(n), most=VOCABULARY).cast("string") for n in range(WORDS))
    named = numbers.select(
        F.concat(F.lit("item-"), F.lpad(F.col("id").cast("string"), 12, "0")).alias("item_id"),
        F.array_join(
            F.array(*(F.concat(F.lit("word"), F.translate(w, "0123456789", "abcdefghij")) for w in words)), " "
        ).alias("text"),
        _number(F.lit(night), most=POOL).alias("picture"),
    )
    shas = {
        "text_sha": F.sha2("text", 256),
        "image_sha": F.sha2(F.concat(F.lit("picture "), F.col("picture").cast("string")), 256),
    }
    rows = named.join(F.broadcast(pool), on="picture").withColumns(shas)
    with Run("extract", config) as run:
        tables = spark_delta(spark, run.lake, config.spark)
        told = {"run_id": F.lit(run.run_id), "extracted_at": F.lit(run.started), "deleted": F.lit(False)}
        tables.append(ITEMS, rows.withColumns(told | dict.fromkeys(("row_hash", "picture_stat"), F.lit(None))))
        for modality, encoder in ENCODERS.items():
            tables.append(VECTORS, _vectors(rows.select(F.col(f"{modality}_sha").alias("sha")).distinct(), encoder))
        tables.append(SEMANTIC_IDS, _ids(rows, run.run_id))


def _number(*of: Column, most: int) -> Column:
    return F.pmod(F.xxhash64("id", *of), F.lit(most))


def _noise(rng: np.random.Generator) -> bytes:
    target = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(target, "JPEG", quality=90)
    return target.getvalue()


def _vectors(shas: DataFrame, encoder: str) -> DataFrame:
    numbers = (F.pmod(F.xxhash64("sha", F.lit(n)), F.lit(1000)) / 1000 - 0.5 for n in range(WIDTH))
    vector = F.array(*(number.cast("float") for number in numbers))
    return shas.select(F.lit(encoder).alias("encoder"), "sha", vector.alias("vector"), F.lit(None).alias("fault"))


def _ids(rows: DataFrame, run_id: str) -> DataFrame:
    """Codes that are random, and a function of the content."""
    named = rows.select(
        "item_id",
        item_hash(F.col("item_id")).alias("item_hash"),
        content(F.col("text_sha"), F.col("image_sha")).alias("content"),
    )
    for part, levels in zip(PARTS, LEVELS.layout().levels, strict=True):
        codes = (F.pmod(F.xxhash64("content", F.lit(f"{part}{level}")), F.lit(256)) for level in range(levels))
        named = named.withColumn(part, F.array(*(code.cast("smallint") for code in codes)))
    spelled = (F.concat(F.lit(part[0]), F.array_join(part, "-")) for part in PARTS)
    constant = {"tokenizer": TOKENIZER, "run_id": run_id, "has_text": True, "has_image": True}
    return named.withColumns({"sid": F.concat_ws(".", *spelled)} | {k: F.lit(v) for k, v in constant.items()})


def measure(config: Config) -> dict[str, Any]:
    """Seconds, sizes, and this process's peak memory."""
    with spark_session(config.spark, "report") as spark, Run("report", config, writes=False) as run:
        clock = time.perf_counter()
        with run.phase("gather"):
            found = gather(spark, run.lake, config)
        place = Path(write(found, run.lake, run.run_id))
        seconds = time.perf_counter() - clock
    return {
        "items": found.data["items"]["live"],
        "seconds": seconds,
        "page_bytes": place.stat().st_size,
        "json_bytes": place.with_name("report.json").stat().st_size,
        "pictures": len(found.pictures),
        "driver_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Java is another process
    }


def main(
    items: Annotated[list[int] | None, typer.Option(help="Of a lake; may be repeated.")] = None,
    heap: Annotated[str, typer.Option(help="Of Spark.")] = "4g",
    folder: Annotated[Path | None, typer.Option(help="Where lakes and shuffles lie.")] = None,
    measured: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print the table and write ``results/report_size.json``; fails where a page is larger than it may be."""
    if measured is not None:
        typer.echo(json.dumps(measure(config_of(measured, heap))))
        return
    sizes = {f"{size:,}": size for size in items or [2_000, 100_000, 1_000_000]}
    found = measured_apart("benchmarks.report_size", sizes, build, heap, folder)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "report_size.json").write_text(json.dumps({"heap": heap, "lakes": found}, indent=1) + "\n")
    table = Table("items", *found, title=f"a report of a lake of which 1 % changed, Spark's heap {heap}")
    table.add_row("seconds", *(f"{lake['seconds']:.1f}" for lake in found.values()))
    for name in ("page", "json"):
        table.add_row(f"{name}, MB", *(f"{lake[f'{name}_bytes'] / 1e6:.1f}" for lake in found.values()))
    table.add_row("pictures", *(f"{lake['pictures']:,}" for lake in found.values()))
    table.add_row("Python driver's peak", *(f"{lake['driver_peak_bytes'] / 1e6:.0f} MB" for lake in found.values()))
    table.add_row("built in, s", *(f"{lake['built_seconds']:.0f}" for lake in found.values()))
    Console().print(table)
    if any(lake["page_bytes"] > MOST_BYTES for lake in found.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

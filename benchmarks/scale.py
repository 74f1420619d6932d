"""What planning and releasing cost as a lake grows: lakes of keys alone, of millions of item versions.

A lake gets ``N`` versions of items (four of five are of a first night, the others changed an item in a second one), a
small vector of every text, an ID of every item, and a release. Then 1 % changes, and a process of its own plans
``encode`` and ``tokenize`` and publishes. Shown are its seconds by step, the bytes that Spark shuffled for it, and the
peak memory of its Python driver; Spark's heap is bounded by ``spark.driver.memory``.
"""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from benchmarks.lakes import config_of, measured_apart
from benchmarks.trials import RESULTS
from pipeline.config.models import Config
from pipeline.lake.run import Run
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.expressions import content, item_hash
from pipeline.on_spark.plans import plan_encoding, plan_tokenizing
from pipeline.on_spark.publish import publish
from pipeline.on_spark.session import spark_session
from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS
from tokenizer.base.artefact import Description
from tokenizer.base.config import TokenizerConfig

ENCODERS = {"text": "a" * 16, "image": "b" * 16}
TOKENIZER = "c" * 16
LEVELS = TokenizerConfig(shared_levels=3, text_levels=2, image_levels=0, codebook_size=256)
CHANGED = 100  # one item of so many
WIDTH = 4  # numbers of a vector
STEPS = ("plan encode", "plan tokenize", "publish")


def build(spark: SparkSession, config: Config, versions: int, id_bytes: int = 17) -> None:
    """A released lake of so many versions of items, of which 1 % has changed since."""

    def night(name: str, numbers: DataFrame, *, vectors: bool) -> None:
        item_id = F.concat(F.lit("item-"), F.lpad(F.col("id").cast("string"), id_bytes - 5, "0"))
        add_night(spark, config, numbers.withColumn("item_id", item_id), name, vectors=vectors)

    items = versions * 4 // 5
    night("first", spark.range(items), vectors=True)
    night("second", spark.range(versions - items).withColumn("id", F.col("id") * 4), vectors=True)
    with Run("publish", config) as run:
        run.lake.write_json(f"tokenizers/{TOKENIZER}/config.json", _description().model_dump(mode="json"))
        publish(spark, run, TOKENIZER)
    changed = spark.range(items // CHANGED).withColumn("id", F.col("id") * CHANGED)
    night("third", changed, vectors=False)


def add_night(spark: SparkSession, config: Config, named: DataFrame, night: str, *, vectors: bool) -> None:
    """Versions of the items ``id`` and ``item_id`` with a text of their own and, if asked for, vectors and IDs."""
    text = F.sha2(F.concat_ws(" ", F.lit(night), F.col("id").cast("string")), 256)
    rows = named.select("item_id", text.alias("text_sha"))
    with Run("extract", config) as run:
        tables = spark_delta(spark, run.lake, config.spark)
        told = {"run_id": F.lit(run.run_id), "extracted_at": F.lit(run.started), "deleted": F.lit(False)}
        absent = {name: F.lit(None) for name in ("text", "image", "image_sha", "row_hash", "picture_stat")}
        tables.append(ITEMS, rows.withColumns(told | absent))
        if vectors:
            tables.append(VECTORS, _vectors(rows))
            tables.append(SEMANTIC_IDS, _ids(rows, run.run_id))


def tokenize_pending(spark: SparkSession, config: Config) -> None:
    """What encoding and tokenizing the pending items would leave, so that there is something to release."""
    with Run("tokenize", config) as run:
        tables = spark_delta(spark, run.lake, config.spark)
        newest = tables.read(ITEMS).agg(F.max("run_id")).first()
        assert newest is not None
        pending = tables.read(ITEMS).where(F.col("run_id") == newest[0]).select("item_id", "text_sha")
        tables.append(VECTORS, _vectors(pending))


def measure(config: Config) -> dict[str, Any]:
    """Seconds and shuffled bytes of each step on a lake of which 1 % is pending, and this process's peak memory."""
    seconds: dict[str, float] = {}
    shuffled: dict[str, int] = {}
    rows = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        clock, before = time.perf_counter(), _shuffled(spark)
        yield
        seconds[name], shuffled[name] = time.perf_counter() - clock, _shuffled(spark) - before

    with spark_session(config.spark, "scale") as spark:
        with Run("encode", config) as run, step("plan encode"):
            rows["plan encode"] = plan_encoding(spark, run, ENCODERS).rows
        tokenize_pending(spark, config)
        with Run("tokenize", config) as run:
            with step("plan tokenize"):
                rows["plan tokenize"] = plan_tokenizing(spark, run, "tokenize", TOKENIZER, ENCODERS).rows
            pending = spark.read.parquet(f"{run.lake.uri}/plans/{run.run_id}/tokenize")
            tables = spark_delta(spark, run.lake, config.spark)
            tables.append(SEMANTIC_IDS, _codes(pending.select("item_id", "item_hash", "content"), run.run_id))
        with Run("publish", config) as run:
            with step("publish"):
                publish(spark, run, TOKENIZER)
            rows["publish"] = run.counts["rows_out"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Java is another process
    return {"seconds": seconds, "shuffled_bytes": shuffled, "rows": rows, "driver_peak_bytes": peak}


def _shuffled(spark: SparkSession) -> int:
    """Bytes that all executors wrote for others to read, so far."""
    executors = spark.sparkContext._jsc.sc().statusStore().executorList(False)  # type: ignore[union-attr]
    return sum(executors.apply(number).totalShuffleWrite() for number in range(executors.size()))


def _vectors(rows: DataFrame) -> DataFrame:
    numbers = F.array_repeat(F.lit(0.5).cast("float"), WIDTH)
    return rows.select(
        F.lit(ENCODERS["text"]).alias("encoder"),
        F.col("text_sha").alias("sha"),
        numbers.alias("vector"),
        F.lit(None).alias("fault"),
    )


def _ids(rows: DataFrame, run_id: str) -> DataFrame:
    named = rows.select(
        "item_id",
        item_hash(F.col("item_id")).alias("item_hash"),
        content(F.col("text_sha"), F.lit(None)).alias("content"),
    )
    return _codes(named, run_id)


def _codes(named: DataFrame, run_id: str) -> DataFrame:
    """Codes that are random, and a function of the content."""

    def codes(levels: int, seed: int) -> Column:
        return F.array(
            *(
                F.pmod(F.xxhash64("content", F.lit(seed + level)), F.lit(256)).cast("smallint")
                for level in range(levels)
            )
        )

    rows = named.withColumns({"shared": codes(3, 0), "text": codes(2, 3), "image": F.array().cast("array<smallint>")})
    sid = F.concat(F.lit("s"), F.array_join("shared", "-"), F.lit(".t"), F.array_join("text", "-"))
    constant = {
        "tokenizer": F.lit(TOKENIZER),
        "run_id": F.lit(run_id),
        "has_text": F.lit(True),
        "has_image": F.lit(False),
    }
    return rows.withColumns({"sid": sid, **constant})


def _description() -> Description:
    return Description(
        fingerprint=TOKENIZER, encoders=ENCODERS, text_dim=WIDTH, image_dim=1, config=LEVELS, versions={}
    )


def main(
    millions: Annotated[list[float] | None, typer.Option(help="Versions of a lake; may be repeated.")] = None,
    heap: Annotated[str, typer.Option(help="Of Spark.")] = "4g",
    folder: Annotated[Path | None, typer.Option(help="Where lakes and shuffles lie.")] = None,
    measured: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print the table and write ``results/scale.json``."""
    if measured is not None:
        typer.echo(json.dumps(measure(config_of(measured, heap))))
        return
    sizes = {f"{size:g} M": int(size * 1_000_000) for size in millions or [1.0, 5.0, 20.0]}
    found = measured_apart("benchmarks.scale", sizes, build, heap, folder)
    (RESULTS / "scale.json").write_text(json.dumps({"heap": heap, "lakes": found}, indent=1) + "\n")
    table = Table("versions of items", *found, title=f"1 % changed, Spark's heap {heap}")
    for step in STEPS:
        table.add_row(f"{step}, s", *(f"{lake['seconds'][step]:.1f}" for lake in found.values()))
        table.add_row(f"{step}, shuffled", *(f"{lake['shuffled_bytes'][step] / 1e6:.0f} MB" for lake in found.values()))
    table.add_row("Python driver's peak", *(f"{lake['driver_peak_bytes'] / 1e6:.0f} MB" for lake in found.values()))
    table.add_row("built in, s", *(f"{lake['built_seconds']:.0f}" for lake in found.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

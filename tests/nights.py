"""A small shop's nights, for tests of what comes after them."""

from collections.abc import Callable

from pyspark.sql import SparkSession

from pipeline.config.models import Config
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.plans import drop_plan
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake

Progress = Callable[[float, int, dict[str, float]], None]

SETTINGS = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=40",
    "gates={max_collision_rate: 1, min_perplexity: 0, max_code_share: 1000, max_delete_fraction: 1}",
    "encoders={commit_rows: 100, workers: 1}",
]


def run_night(spark: SparkSession, config: Config) -> dict[str, Run]:
    """The jobs of a night by name; a tokenizer is trained if there is none."""
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
    from pipeline.on_spark.extract import extract
    from pipeline.on_spark.publish import publish

    runs = {}
    with Run("extract", config) as runs["extract"]:
        extract(spark, runs["extract"])
    runs["encode"] = encode_night(spark, config)
    lake = Lake.open(config.lake)
    if not fingerprints(lake, "tokenizers"):
        train(spark, config)
    tokenizer = fingerprints(lake, "tokenizers")[0]
    runs["tokenize"] = tokenize_night(spark, config, tokenizer, encoder_fingerprints(config.encoders))
    with Run("publish", config) as runs["publish"]:
        publish(spark, runs["publish"], tokenizer)
    return runs


def encode_night(spark: SparkSession, config: Config) -> Run:
    """Plan and encode."""
    from pipeline.on_ray.encode import encode
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
    from pipeline.on_spark.plans import plan_encoding

    with Run("encode", config) as run:
        plan = plan_encoding(spark, run, encoder_fingerprints(config.encoders))
        if plan.rows:
            encode(run, plan)
        drop_plan(run.lake, plan)
    return run


def train(spark: SparkSession, config: Config, progress: Progress | None = None) -> Run:
    """Plan and train; the run knows the tokenizer's fingerprint."""
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
    from pipeline.on_ray.training.tokenizer import train_tokenizer
    from pipeline.on_spark.plans import plan_training

    with Run("train-tokenizer", config) as run:
        plan = plan_training(spark, run, encoder_fingerprints(config.encoders), config.tokenizer.sample_items)
        train_tokenizer(run, plan, progress)
        drop_plan(run.lake, plan)
    return run


def tokenize_night(
    spark: SparkSession, config: Config, tokenizer: str, encoders: dict[str, str], job: str = "tokenize"
) -> Run:
    """Plan and tokenize."""
    from pipeline.on_ray.tokenize import tokenize
    from pipeline.on_spark.plans import plan_tokenizing

    with Run(job, config) as run:
        plan = plan_tokenizing(spark, run, job, tokenizer, encoders)
        if plan.rows:
            tokenize(run, plan)
        drop_plan(run.lake, plan)
    return run

"""A small shop's nights, for tests of what comes after them."""

from pathlib import Path

from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encode import encode
from pipeline.on_ray.tokenize import tokenize
from pipeline.on_ray.training.tokenizer import train_tokenizer
from pipeline.on_spark.extract import extract
from pipeline.release.releases import publish

SETTINGS = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=40",
    "gates={max_collision_rate: 1, min_perplexity: 0, max_delete_fraction: 1}",
    "encoders.commit_rows=100",
]


def run_night(spark: SparkSession, config: Config) -> dict[str, Run]:
    """The jobs of a night by name; a tokenizer is trained if there is none."""
    runs = {name: Run(name, config) for name in ("extract", "encode", "tokenize", "publish")}
    lake = Lake(config.lake)
    with runs["extract"] as run:
        extract(spark, run)
    with runs["encode"] as run:
        encode(run)
    if not fingerprints(lake, "tokenizers"):
        with Run("train-tokenizer", config) as run:
            train_tokenizer(run)
    tokenizer = fingerprints(lake, "tokenizers")[0]
    with runs["tokenize"] as run:
        tokenize(run, tokenizer)
    with runs["publish"] as run:
        publish(run, tokenizer)
    return runs


def two_nights(spark: SparkSession, folder: Path) -> None:
    """A shop of 120 items whose lake has two releases."""
    generate(folder, items=120, users=20, seed=0)
    config = load_config(folder / "config.yaml", SETTINGS)
    run_night(spark, config)
    mutate(folder, 0.1, seed=1)
    run_night(spark, config)

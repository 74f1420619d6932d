"""A generated catalogue through every job, to the figures."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.encode import run_encode
from jobs.evaluate import run_evaluate
from jobs.extract import run_extract
from jobs.lines import say, show, then
from jobs.publish import run_publish
from jobs.report import reported
from jobs.sequences import run_sequences
from jobs.tokenize import run_tokenize
from jobs.train_ranker import run_train_ranker
from jobs.train_tokenizer import run_train_tokenizer

if TYPE_CHECKING:
    from pipeline.config.models import Config


def command(
    folder: Annotated[Path, typer.Argument(help="Where to write catalogue, configuration and lake.")] = Path("demo"),
    items: Annotated[int, typer.Option("--items", min=120, help="Items of the catalogue.")] = 2000,
    users: Annotated[int, typer.Option("--users", min=20, help="Users whose clicks are drawn.")] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random choice.")] = 0,
    generate_only: Annotated[bool, typer.Option("--generate-only", help="Write the catalogue, run no job.")] = False,
) -> None:
    """Generate a catalogue with pictures, texts and clicks into FOLDER, and run every job on it."""
    from jobs.entry import read_config
    from jobs.tables import show_demo
    from pipeline.demo.generator import generate
    from pipeline.lake.run import Run
    from pipeline.on_ray.session import ray_for
    from pipeline.on_spark.session import spark_for

    clock = time.perf_counter()
    generate(folder, items, users, seed)
    say(f"demo: generated {items:,} items and {users:,} users in {time.perf_counter() - clock:.1f} s")
    if generate_only:
        then("nightly", folder / "config.yaml")
        return
    config = read_config(folder / "config.yaml")
    with (
        Run("demo", config, items=items, users=users, seed=seed) as run,
        spark_for(run),
        ray_for(run),
    ):
        tokenizer, ranker = reported(partial(run_all, config, run.run_id), config, None, run.run_id)
    show(show_demo, folder, config, tokenizer, ranker, time.perf_counter() - clock)
    then("status", folder / "config.yaml")


def run_all(config: "Config", run_id: str) -> tuple[str, str]:
    """Every job from the raw catalogue to a measured ranker; the fingerprints of tokenizer and ranker."""
    run_extract(config, run_id)
    run_encode(config, run_id)
    tokenizer = run_train_tokenizer(config, run_id)
    run_tokenize(config, tokenizer, run_id)
    run_publish(config, tokenizer, run_id=run_id)
    run_sequences(config, run_id)
    ranker = run_train_ranker(config, run_id)
    run_evaluate(config, ranker, run_id)
    return tokenizer, ranker

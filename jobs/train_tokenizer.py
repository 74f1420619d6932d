"""A tokenizer from ``vectors`` → a tokenizer artefact: Spark chooses the sample, Ray Train trains."""

from typing import TYPE_CHECKING

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Planned, PlanOnly, read_config, tell
from jobs.lines import say, show, then
from jobs.planning import BOTH, Halves, planned_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.config.models import Config
    from pipeline.lake.plans import Plan
    from pipeline.lake.run import Run


def run_train_tokenizer(config: "Config", run_id: str | None = None, halves: Halves = BOTH) -> str:
    """The job, as demo runs it too; returns the tokenizer's fingerprint, empty where it only planned."""
    from jobs.progress import epochs
    from jobs.tables import show_tokenizer
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints

    encoders = encoder_fingerprints(config.encoders)

    def make_plan(spark: "SparkSession", run: "Run") -> "Plan":
        from pipeline.on_spark.plans import plan_training

        return plan_training(spark, run, encoders, config.tokenizer.sample_items)

    fingerprint = ""
    with planned_run("train-tokenizer", config, make_plan, run_id=run_id, halves=halves) as (run, plan):
        if plan is not None:
            from pipeline.on_ray.training.tokenizer import train_tokenizer

            with epochs(run) as progress:
                fingerprint = train_tokenizer(run, plan, progress)
    tell(run)
    if fingerprint:
        from tokenizer.quality.verdict import verdict

        said = verdict(run.metrics, config.tokenizer, config.gates.min_generalisation)
        say(f"  tokenizer {fingerprint}", run, tokenizer=fingerprint, verdict=said)
        show(show_tokenizer, run.metrics)
        show(typer.echo, f"verdict: {said}")
    return fingerprint


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    plan_only: PlanOnly = False,
    planned: Planned = None,
) -> None:
    """Train the tokenizer on a sample of the stored vectors (Spark chooses it, Ray Train trains)."""
    from pipeline.lake.storage import Lake
    from pipeline.release.pointer import released

    settings = read_config(config, overrides)
    fingerprint = run_train_tokenizer(settings, halves=Halves(plan_only, planned))
    if not plan_only:
        standing = released(Lake.open(settings.lake, settings.storage_options))
        then(f"backfill --tokenizer {fingerprint}" if standing else "tokenize", config)

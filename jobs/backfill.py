"""IDs of every current item under another tokenizer, beside the released ones, and what moving to them would mean."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Planned, PlanOnly, read_config, tell
from jobs.lines import show, then
from jobs.planning import BOTH, Halves, planned_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.config.models import Config
    from pipeline.lake.plans import Plan
    from pipeline.lake.run import Run

logger = logging.getLogger("pipeline.backfill")


def run_backfill(config: "Config", tokenizer: str, halves: Halves = BOTH) -> "Run":
    """The job; whichever encoders are configured, the stored vectors of those that the tokenizer knows are read.

    The release stays as it is, and a run that was killed goes on from its last commit. ``run.metrics`` gets the
    ``migration`` from the released tokenizer, if that is another one.
    """
    from pipeline.lake.artefacts import tokenizer_encoders

    def make_plan(spark: "SparkSession", run: "Run") -> "Plan":
        from pipeline.on_spark.plans import plan_tokenizing

        plan = plan_tokenizing(spark, run, "backfill", tokenizer, tokenizer_encoders(run.lake, tokenizer))
        _warn_of_missing_vectors(run, plan)
        return plan

    with planned_run("backfill", config, make_plan, halves=halves, tokenizer=tokenizer) as (run, plan):
        if plan is not None:
            from pipeline.on_ray.tokenize import tokenize

            tokenize(run, plan)
        if halves == BOTH:
            _compare(run, tokenizer)
    return run


def _warn_of_missing_vectors(run: "Run", plan: "Plan") -> None:
    from pipeline.errors import JobError

    waiting, encoders = run.counts["unencoded"], plan.facts["encoders"]
    named = f"encoders {encoders['text']} (text) and {encoders['image']} (image)"
    if waiting and not plan.rows:
        raise JobError(
            f"tokenizer {plan.facts['tokenizer']} was trained on vectors of {named}, and no item that lacks an ID has "
            "any: configure those encoders and run encode"
        )
    if waiting:
        logger.warning(
            "%d items have no vectors of %s and get no ID: configure those, run encode, backfill", waiting, named
        )


def _compare(run: "Run", tokenizer: str) -> None:
    from pipeline.on_spark.session import spark_for
    from pipeline.on_spark.tokenizer_comparison import compare_tokenizers
    from pipeline.release.pointer import released

    release = released(run.lake)
    if release and release.tokenizer != tokenizer:
        with spark_for(run) as spark, run.phase("compare"):
            compared = compare_tokenizers(spark, run.lake, run.config.spark, release.tokenizer, tokenizer)
            run.metrics["migration"] = compared


def command(
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Fingerprint of the tokenizer to fill in.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    plan_only: PlanOnly = False,
    planned: Planned = None,
) -> None:
    """Give every current item an ID under another tokenizer, from stored vectors; the release stays as it is."""
    from jobs.tables import show_migration

    run = run_backfill(read_config(config, overrides), tokenizer, Halves(plan_only, planned))
    tell(run)
    if "migration" in run.metrics:
        show(show_migration, run.metrics["migration"])
    if not plan_only:
        then(f"publish --tokenizer {tokenizer}", config)

"""Texts and pictures without a vector under the configured encoders → ``vectors``: Spark plans, Ray encodes."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Planned, PlanOnly, read_config, tell
from jobs.lines import say, then
from jobs.planning import BOTH, Halves, planned_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.config.models import Config
    from pipeline.lake.plans import Plan
    from pipeline.lake.run import Run


def run_encode(
    config: "Config", run_id: str | None = None, halves: Halves = BOTH, *, retry_failed: bool = False
) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.errors import ConfigError, JobError
    from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints

    if retry_failed and halves.planned:
        raise ConfigError("--retry-failed decides what is planned, and the plan is there: give it with --plan-only")
    configured = encoder_fingerprints(config.encoders)
    encoders = {modality: configured[modality] for modality in config.encoders.models}  # the others have no work here

    def make_plan(spark: "SparkSession", run: "Run") -> "Plan":
        from pipeline.on_spark.plans import plan_encoding

        if retry_failed and encoders:
            from pipeline.on_spark.retrying import retry_failures

            retry_failures(spark, run, encoders)
        return plan_encoding(spark, run, encoders)

    def unchanged(run: "Run") -> str | None:
        from pipeline.lake.run_records import RunRecords, unchanged_since
        from schemas.tables import ITEMS, QUARANTINE, VECTORS

        if retry_failed:
            return None
        last = RunRecords(run.lake).finished("encode")
        return unchanged_since(run, last, [ITEMS, VECTORS, QUARANTINE], encoders=configured)

    arguments = {"retry_failed": retry_failed}
    made = planned_run("encode", config, make_plan, run_id=run_id, halves=halves, unchanged=unchanged, **arguments)
    with made as (run, plan):
        run.metrics["encoders"] = configured
        if plan is not None:
            from pipeline.on_ray.encode import encode

            if plan.facts["encoders"] != encoders:
                raise JobError(f"plan {plan.run_id} is for other encoders than those configured: plan again")
            encode(run, plan)
        if halves.planned is None and "unchanged_since" not in run.metrics:
            _quarantine(run, encoders)
    tell(run)
    if run.counts.get("failed"):
        say(f"  {run.counts['failed']:,} inputs that no encoder could read: quarantined as encoder_failed", run)


def _quarantine(run: "Run", encoders: dict[str, str]) -> None:
    from pipeline.on_spark.quarantine import quarantine_failed
    from pipeline.on_spark.session import spark_for
    from schemas.tables import QUARANTINE

    with spark_for(run) as spark, run.phase("quarantine"):
        quarantine_failed(spark, run, encoders)
        run.wrote(QUARANTINE)


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    plan_only: PlanOnly = False,
    planned: Planned = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also what the encoder failed on before.")
    ] = False,
) -> None:
    """Give every text and picture of the current items its vector (Spark plans, Ray Data encodes)."""
    from pipeline.lake.artefacts import fingerprints
    from pipeline.lake.storage import Lake

    settings = read_config(config, overrides)
    run_encode(settings, halves=Halves(plan_only, planned), retry_failed=retry_failed)
    if not plan_only:
        trained = fingerprints(Lake.open(settings.lake, settings.storage_options), "tokenizers")
        then("tokenize" if trained else "train-tokenizer", config)

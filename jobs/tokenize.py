"""Current items without an ID under a tokenizer → ``semantic_ids``: Spark plans, Ray tokenizes."""

from functools import cache
from typing import TYPE_CHECKING

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Planned, PlanOnly, Tokenizer, read_config, tell
from jobs.lines import then
from jobs.planning import BOTH, Halves, planned_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.config.models import Config
    from pipeline.lake.plans import Plan
    from pipeline.lake.run import Run


def run_tokenize(
    config: "Config", tokenizer: str | None = None, run_id: str | None = None, halves: Halves = BOTH
) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.release.pointer import default_tokenizer

    @cache  # naming a model reads its files
    def chosen(run: "Run") -> tuple[str, dict[str, str]]:
        """The tokenizer, and the encoders that are configured, which it was trained on."""
        from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints

        name, encoders = tokenizer or default_tokenizer(run), encoder_fingerprints(config.encoders)
        check_encoders(run, name, encoders)
        return name, encoders

    def make_plan(spark: "SparkSession", run: "Run") -> "Plan":
        from pipeline.on_spark.plans import plan_tokenizing
        from pipeline.on_spark.quarantine import quarantine_failed

        name, encoders = chosen(run)
        if halves.plan_only:  # encode ran where there is no Spark
            quarantine_failed(spark, run, encoders)
        return plan_tokenizing(spark, run, "tokenize", name, encoders)

    def unchanged(run: "Run") -> str | None:
        from pipeline.lake.run_records import RunRecords, unchanged_since
        from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS

        name, encoders = chosen(run)
        last = RunRecords(run.lake).finished("tokenize")
        since = unchanged_since(run, last, [ITEMS, VECTORS, SEMANTIC_IDS], tokenizer=name, encoders=encoders)
        if last and since:
            counts = last["counts"]
            run.count(rows_in=counts["rows_in"] - counts.get("rows_out", 0), unencoded=counts["unencoded"])
        return since

    with planned_run(
        "tokenize", config, make_plan, run_id=run_id, halves=halves, unchanged=unchanged, tokenizer=tokenizer
    ) as (run, plan):
        if plan is not None:
            from pipeline.on_ray.tokenize import tokenize

            run.metrics |= plan.facts
            tokenize(run, plan)
    tell(run)


def check_encoders(run: "Run", tokenizer: str, configured: dict[str, str]) -> None:
    """A tokenizer reads the vectors of the encoders that it was trained on.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: others are configured; both are named.
    """
    from pipeline.errors import JobError
    from pipeline.lake.artefacts import tokenizer_encoders

    for modality, trained in tokenizer_encoders(run.lake, tokenizer).items():
        if configured[modality] != trained:
            raise JobError(
                f"tokenizer {tokenizer} was trained on vectors of {modality} encoder {trained}, configured is "
                f"{configured[modality]}: configure that one, or name with --tokenizer one that was trained on this"
            )


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
    plan_only: PlanOnly = False,
    planned: Planned = None,
) -> None:
    """Give every current item its semantic ID under a tokenizer (Spark plans, Ray Data tokenizes)."""
    run_tokenize(read_config(config, overrides), tokenizer, halves=Halves(plan_only, planned))
    if not plan_only:
        then(f"publish --tokenizer {tokenizer}" if tokenizer else "publish", config)

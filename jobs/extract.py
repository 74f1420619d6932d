"""Spark: raw catalogue → ``items`` (only new, changed, deleted) and ``quarantine``."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import then

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_extract(config: "Config", run_id: str | None = None, *, verify_pictures: bool = False) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.lake.run import Run
    from pipeline.on_spark.extract import extract
    from pipeline.on_spark.session import spark_for

    arguments = {"verify_pictures": verify_pictures}
    with Run("extract", config, run_id=run_id, **arguments) as run, spark_for(run) as spark:
        extract(spark, run, verify_pictures=verify_pictures)
    tell(run)


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    verify_pictures: Annotated[bool, typer.Option("--verify-pictures", help="Open and compare every picture.")] = False,
) -> None:
    """Bring items and quarantine up to date with the raw catalogue (Spark)."""
    run_extract(read_config(config, overrides), verify_pictures=verify_pictures)
    then("encode", config)

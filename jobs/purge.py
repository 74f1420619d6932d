"""Spark: superseded and deleted versions go, and what only they had; or every trace of an item."""

from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say, then

DEFAULT_DAYS = 30


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    older_than_days: Annotated[
        int, typer.Option("--older-than-days", min=0, help="Keep versions superseded or deleted more recently.")
    ] = DEFAULT_DAYS,
    item: Annotated[
        list[str] | None, typer.Option("--item", help="Erase this deleted item at once, alone. May be repeated.")
    ] = None,
) -> None:
    """Drop old versions of items, their IDs and vectors, or all that is known of an item (Spark)."""
    from pipeline.lake.run import Run
    from pipeline.on_spark.purge import purge
    from pipeline.on_spark.session import spark_for

    settings = read_config(config, overrides)
    with (
        Run("purge", settings, older_than_days=older_than_days, items=len(item or ())) as run,
        spark_for(run) as spark,
    ):
        purge(spark, run, older_than_days, item or ())
    tell(run)
    if any(run.counts.values()):
        say("  vacuum frees the bytes, once they are older than its limit", run)
        then("vacuum", config)

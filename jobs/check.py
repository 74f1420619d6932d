"""The first rows of the catalogue as extract would take them; nothing is written."""

import json
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Json, Overrides, read_config


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=1_000_000, help="Of the source, the first ones.")] = 1000,
    as_json: Json = False,
) -> None:
    """Show what extract would make of the first rows of the catalogue (Spark), and write nothing."""
    from jobs.first_views import show_check
    from pipeline.inspect.check import check
    from pipeline.on_spark.session import spark_session

    settings = read_config(config, overrides)
    with spark_session(settings.spark, "hisam check") as spark:
        found = check(spark, settings, rows)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show_check(found)

"""Where an item's IDs came from."""

import json
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Json, Overrides, read_config


def command(
    item_id: Annotated[str, typer.Argument(help="The item's id, as the catalogue spells it.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show an item's versions, IDs, quarantine, what its codes stand for, and its nearest items by prefix."""
    from jobs.views import show_item
    from pipeline.inspect.explain import explain
    from pipeline.lake.storage import Lake
    from pipeline.on_spark.session import spark_session

    settings = read_config(config, overrides)
    lake = Lake.open(settings.lake, settings.storage_options)
    with spark_session(settings.spark, "hisam explain") as spark:
        found = explain(spark, lake, settings, item_id)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        show_item(found)

"""Tables, sizes, pending work, released fingerprint, last runs."""

import json

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Json, Overrides, read_config
from jobs.lines import then


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what the lake holds, what is released, what is waiting and how long it should take."""
    from jobs.views import show_status
    from pipeline.inspect.status import status
    from pipeline.lake.storage import Lake
    from pipeline.on_spark.session import spark_session

    settings = read_config(config, overrides)
    lake = Lake.open(settings.lake, settings.storage_options)
    with spark_session(settings.spark, "hisam status") as spark:
        found = status(spark, lake, settings)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        show_status(found)
        if found["runs"].get("publish", {}).get("status") == "refused":  # as another night would be
            then("report --open", config)
        elif any(work["items"] for work in found["waiting"].values()):
            then("nightly", config)

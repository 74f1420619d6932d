"""A first configuration file, guessed from what a source holds."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG
from jobs.lines import then


def command(
    source: Annotated[str, typer.Argument(help="The catalogue: a file or folder of CSV, JSON, Parquet or Delta.")],
    interactions: Annotated[str | None, typer.Option("--interactions", help="The log of who clicked what.")] = None,
    to: Annotated[
        Path, typer.Option("--to", help="The file to write; one that is there already stays.")
    ] = DEFAULT_CONFIG,
) -> None:
    """Look at a catalogue (Spark) and write a commented configuration file with guesses to mend."""
    from jobs.first_views import show_sources
    from pipeline.config.models import SparkSettings
    from pipeline.inspect.guess.look import readings, write_configuration
    from pipeline.on_spark.session import spark_session

    reading, log_reading = readings(source, interactions, to)  # what is not there is said before Spark starts
    with spark_session(SparkSettings(), "hisam init") as spark:
        seen = write_configuration(spark, source, reading, interactions, log_reading, to)
    show_sources(seen)
    typer.echo(f"init: wrote {to}; read it first")
    then("check", to)

"""Figures of the last runs, the release and the quarantine, for Prometheus."""

from datetime import UTC, datetime

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Print figures of the lake in Prometheus's text format; starts no engine."""
    from pipeline.inspect.metrics import exposition
    from pipeline.lake.storage import Lake

    settings = read_config(config, overrides)
    typer.echo(exposition(Lake.open(settings.lake, settings.storage_options), datetime.now(UTC)), nl=False)

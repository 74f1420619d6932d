"""IDs of every live item under another tokenizer, beside the released ones."""

from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start, tell


def command(
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Fingerprint of the tokenizer to fill in.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Give every live item IDs under another tokenizer, from its stored vectors; the release stays as it is."""
    from jobs.tables import show_migration
    from pipeline.lake.run import Run
    from pipeline.on_ray.backfill import backfill
    from pipeline.on_ray.session import ray_session

    settings = read_config(config, overrides)
    with Run("backfill", settings, tokenizer=tokenizer) as run, ray_session(settings.ray):
        backfill(run, tokenizer)
    tell(run)
    if "migration" in run.metrics:
        show_migration(run.metrics["migration"])


if __name__ == "__main__":
    start(lambda: typer.run(command))

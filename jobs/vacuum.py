"""What killed runs left and no reader can need any more is deleted."""

from typing import Annotated, Any

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import show, then

DEFAULT_HOURS = 24


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    older_than_hours: Annotated[
        int, typer.Option("--older-than-hours", min=0, help="Leave what is younger; below 1 only with --dry-run.")
    ] = DEFAULT_HOURS,
    keep_releases: Annotated[
        int | None, typer.Option("--keep-releases", min=1, help="Newest releases to keep readable; default: all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, delete nothing.")] = False,
) -> None:
    """Delete files that no version, release or rollback needs, and what killed runs left behind."""
    from jobs.views import show_leftovers
    from pipeline.errors import ConfigError
    from pipeline.lake.run import Run
    from pipeline.release.vacuum import vacuum

    if older_than_hours < 1 and not dry_run:
        # Readers and other Delta clients hold no lock: what they opened just now must outlive the vacuum.
        raise ConfigError("--older-than-hours: 0 would delete under readers that are at work; 1 is the least")
    settings = read_config(config, overrides)
    limits: dict[str, Any] = {"older_than_hours": older_than_hours, "keep_releases": keep_releases}
    with Run("vacuum", settings, writes=not dry_run, **limits, dry_run=dry_run) as run:
        leftovers = vacuum(run, older_than_hours, keep_releases=keep_releases, dry_run=dry_run)
    show(show_leftovers, leftovers, run.metrics["places"], dry_run=dry_run)
    tell(run)
    if dry_run and leftovers:
        then("vacuum", config)

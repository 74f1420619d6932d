"""Small files become few; rows and IDs stay."""

from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say, then


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target_mb: Annotated[int, typer.Option("--target-mb", min=1, max=4096, help="Size of a full file.")] = 128,
) -> None:
    """Rewrite every table's small files as few large ones, without changing a row or an ID."""
    from pipeline.lake.compact import compact
    from pipeline.lake.run import Run

    with Run("compact", read_config(config, overrides), target_mb=target_mb) as run:
        done = compact(run, target_mb * 2**20)
    for table, files in done.items():
        if files["files_before"]:
            say(f"  {table}: {files['files_before']:,} files became {files['files_after']:,}", run)
    tell(run)
    then("vacuum", config)

"""The released IDs as plain Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start, tell


def command(
    to: Annotated[Path, typer.Option("--to", help="The folder to write into.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Write the released IDs as plain Parquet."""
    from pipeline.lake.run import Run
    from pipeline.release.releases import export

    with Run("export", read_config(config, overrides), writes=False, to=str(to)) as run:
        file = export(run, to)
    tell(run)
    typer.echo(f"  {file}")


if __name__ == "__main__":
    start(lambda: typer.run(command))

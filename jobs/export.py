"""The released IDs as plain files, in three forms."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say


def command(
    to: Annotated[Path, typer.Option("--to", help="The folder to write; an earlier export in it is replaced.")],
    form: Annotated[str, typer.Option("--format", help="parquet, tokens (<a_3><b_9>) or tensor.")] = "parquet",
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Write the released IDs as Parquet, as token strings with a vocabulary, or as integer tensors (Spark)."""
    from pipeline.lake.run import Run
    from pipeline.on_spark.export import export
    from pipeline.on_spark.session import spark_for

    settings = read_config(config, overrides)
    with Run("export", settings, writes=False, to=str(to), format=form) as run, spark_for(run) as spark:
        folder = export(spark, run, to, form)
    tell(run)
    say(f"  {folder}", run)

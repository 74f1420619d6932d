"""Gates, then the released pointer moves."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Tokenizer, read_config, start, tell

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_publish(
    config: "Config", tokenizer: str | None = None, *, force: bool = False, run_id: str | None = None
) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.lake.artefacts import newest
    from pipeline.lake.run import Run
    from pipeline.on_spark.publish import publish
    from pipeline.on_spark.session import spark_session

    with Run("publish", config, run_id=run_id, tokenizer=tokenizer, force=force) as run:
        chosen = tokenizer or newest(run.lake, "tokenizers")  # said before Spark starts, if there is none
        with spark_session(config.spark, "hisam publish") as spark:
            moved = publish(spark, run, chosen, force=force)
    tell(run)
    if moved:
        typer.echo(f"  released tokenizer {run.metrics['tokenizer']} as release {run.metrics['release']}")
    elif "held" in run.metrics:
        typer.echo(f"  held: {run.metrics['held']}")
    else:
        typer.echo("  nothing is new: the release stays as it is")


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release although a gate refuses or a rollback holds; recorded.")
    ] = False,
) -> None:
    """Release the newest IDs, if every gate lets them through (exit status 3 if one refuses)."""
    run_publish(read_config(config, overrides), tokenizer, force=force)


if __name__ == "__main__":
    start(lambda: typer.run(command))

"""Gates, then the released pointer moves."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Tokenizer, read_config, tell
from jobs.lines import say, show, then

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_publish(
    config: "Config", tokenizer: str | None = None, *, force: bool = False, run_id: str | None = None
) -> None:
    """The job, as nightly and demo run it too."""
    from jobs.tables import show_gates
    from pipeline.lake.run import Run
    from pipeline.on_spark.publish import publish
    from pipeline.on_spark.session import spark_for
    from pipeline.release.pointer import default_tokenizer

    run = Run("publish", config, run_id=run_id, tokenizer=tokenizer, force=force)
    try:
        with run:
            chosen = tokenizer or default_tokenizer(run)  # said before Spark starts, if there is none
            with spark_for(run) as spark:
                moved = publish(spark, run, chosen, force=force)
    finally:
        if "gates" in run.metrics:  # also where one of them refuses
            show(show_gates, run.metrics["gates"], config.gates)
    tell(run, gates=run.metrics.get("gates"))
    if moved:
        say(f"  released tokenizer {run.metrics['tokenizer']} as release {run.metrics['release']}", run)
    elif "held" in run.metrics:
        say(f"  held: {run.metrics['held']}", run)
    else:
        unmeasured = "" if "gates" in run.metrics else ", and no gate was measured"
        say(f"  nothing is new: the release stays as it is{unmeasured}", run)


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release although a gate refuses or a rollback holds; recorded.")
    ] = False,
) -> None:
    """Release the newest IDs, if every gate lets them through (exit status 3 if one refuses)."""
    settings = read_config(config, overrides)
    run_publish(settings, tokenizer, force=force)
    then("sequences" if settings.interactions else "export --to DIR", config)

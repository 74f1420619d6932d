"""AUC, GAUC, log loss, calibration and slices of a ranker; its differences from another."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import show, then

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_evaluate(
    config: "Config", ranker: str | None = None, run_id: str | None = None, against: str | None = None
) -> dict[str, Any]:
    """The job, as demo runs it too; returns the figures."""
    from jobs.tables import show_comparison, show_evaluation
    from pipeline.lake.artefacts import newest
    from pipeline.lake.run import Run
    from pipeline.on_ray.session import ray_for
    from pipeline.on_ray.training.ranker import evaluate

    arguments = {"ranker": ranker, "against": against}
    with Run("evaluate", config, run_id=run_id, writes=False, **arguments) as run, ray_for(run):
        figures = evaluate(run, ranker or newest(run.lake, "rankers"), against)
    tell(run)
    show(show_evaluation, figures)
    if against:
        show(show_evaluation, figures["against"])
        show(show_comparison, figures["comparison"])
    return figures


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    ranker: Annotated[str | None, typer.Option("--ranker", help="Fingerprint; default: the newest trained.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Fingerprint of a ranker to compare it with.")
    ] = None,
) -> None:
    """Measure a ranker on the test period: AUC, GAUC, log loss, calibration, by items and users; against another."""
    run_evaluate(read_config(config, overrides), ranker, against=against)
    then("score --users FILE --candidates FILE --to DIR", config)

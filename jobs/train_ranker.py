"""Ray Train: a ranker from ``sequences`` → a ranker artefact."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say, then

if TYPE_CHECKING:
    from pipeline.config.models import Config


class Arch(StrEnum):
    """The rankers that can be trained."""

    hmat = "hmat"
    flat = "flat"
    sasrec = "sasrec"
    hstu = "hstu"
    din = "din"


def run_train_ranker(config: "Config", run_id: str | None = None) -> str:
    """The job, as demo runs it too; returns the ranker's fingerprint."""
    from jobs.progress import epochs
    from pipeline.lake.run import Run
    from pipeline.on_ray.session import ray_for
    from pipeline.on_ray.training.ranker import train_ranker

    with (
        Run("train-ranker", config, run_id=run_id, arch=config.ranker.arch) as run,
        ray_for(run),
        epochs(run) as progress,
    ):
        fingerprint = train_ranker(run, progress)
    tell(run)
    say(f"  ranker {fingerprint}", run, ranker=fingerprint)
    return fingerprint


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    arch: Annotated[Arch | None, typer.Option("--arch", help="Overrides ranker.arch.")] = None,
) -> None:
    """Train the ranker on the sequences of the released IDs (Ray Train)."""
    chosen = [f"ranker.arch={arch.value}"] if arch else []
    run_train_ranker(read_config(config, [*(overrides or []), *chosen]))
    then("evaluate", config)

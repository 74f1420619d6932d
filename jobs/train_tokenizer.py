"""Ray Train: a tokenizer from ``embeddings`` → a tokenizer artefact."""

from typing import TYPE_CHECKING

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start, tell

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_train_tokenizer(config: "Config", run_id: str | None = None) -> str:
    """The job, as demo runs it too; returns the tokenizer's fingerprint."""
    from jobs.progress import epochs
    from jobs.tables import show_tokenizer
    from pipeline.lake.run import Run
    from pipeline.on_ray.session import ray_session
    from pipeline.on_ray.training.tokenizer import train_tokenizer

    with (
        Run("train-tokenizer", config, run_id=run_id) as run,
        ray_session(config.ray),
        epochs("train-tokenizer") as progress,
    ):
        fingerprint = train_tokenizer(run, progress)
    tell(run)
    typer.echo(f"  tokenizer {fingerprint}")
    show_tokenizer(run.metrics)
    return fingerprint


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Train the tokenizer on the stored vectors (Ray Train)."""
    run_train_tokenizer(read_config(config, overrides))


if __name__ == "__main__":
    start(lambda: typer.run(command))

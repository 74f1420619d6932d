"""Ray Data: vectors without IDs under a tokenizer → ``semantic_ids``."""

from typing import TYPE_CHECKING

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Tokenizer, read_config, start, tell

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_tokenize(config: "Config", tokenizer: str | None = None, run_id: str | None = None) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.lake.artefacts import newest
    from pipeline.lake.run import Run
    from pipeline.on_ray.session import ray_session
    from pipeline.on_ray.tokenize import tokenize

    with Run("tokenize", config, run_id=run_id, tokenizer=tokenizer) as run, ray_session(config.ray):
        tokenize(run, tokenizer or newest(run.lake, "tokenizers"))
    tell(run)


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Give every live item its semantic ID under a tokenizer (Ray Data)."""
    run_tokenize(read_config(config, overrides), tokenizer)


if __name__ == "__main__":
    start(lambda: typer.run(command))

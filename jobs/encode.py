"""Ray Data: items without a vector under the configured encoders → ``embeddings``."""

from typing import TYPE_CHECKING

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start, tell

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_encode(config: "Config", run_id: str | None = None) -> None:
    """The job, as nightly and demo run it too."""
    from pipeline.lake.run import Run
    from pipeline.on_ray.encode import encode
    from pipeline.on_ray.session import ray_session

    with Run("encode", config, run_id=run_id) as run, ray_session(config.ray):
        encode(run)
    tell(run)


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Give every live item its text and image vectors (Ray Data)."""
    run_encode(read_config(config, overrides))


if __name__ == "__main__":
    start(lambda: typer.run(command))

"""Spark: interactions ⋈ released IDs → ``sequences``."""

from typing import TYPE_CHECKING

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import then

if TYPE_CHECKING:
    from pipeline.config.models import Config


def run_sequences(config: "Config", run_id: str | None = None) -> None:
    """The job, as demo runs it too."""
    from pipeline.lake.run import Run
    from pipeline.on_spark.sequences import sequences
    from pipeline.on_spark.session import spark_for

    with Run("sequences", config, run_id=run_id) as run, spark_for(run) as spark:
        sequences(spark, run)
    tell(run)


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Cut users' histories into the windows that rankers learn from (Spark)."""
    run_sequences(read_config(config, overrides))
    then("train-ranker", config)

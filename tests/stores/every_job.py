"""``python every_job.py CONFIG USERS CANDIDATES TO [KEY=VALUE …]``: every job on a catalogue, from extract to score."""

import sys
from pathlib import Path

from jobs.demo import run_all
from jobs.entry import start
from jobs.score import command as run_score
from pipeline.config.file import load_config
from pipeline.lake.run import Run
from pipeline.on_ray.session import ray_session
from pipeline.on_spark.session import spark_session


def main() -> None:
    file, users, candidates, to = map(Path, sys.argv[1:5])
    config = load_config(file, sys.argv[5:])
    with Run("demo", config) as run, spark_session(config.spark, "every job"), ray_session(config.ray):
        _, ranker = run_all(config, run.run_id)
        run_score(users, candidates, to, top=5, memories=False, ranker=ranker, config=file, overrides=sys.argv[5:])


if __name__ == "__main__":
    start(main)

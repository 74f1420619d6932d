"""``python every_job.py CONFIG USERS CANDIDATES TO [KEY=VALUE …]``: every job on a catalogue, from extract to score."""

import sys
from pathlib import Path

from jobs.encode import run_encode
from jobs.entry import start
from jobs.evaluate import run_evaluate
from jobs.extract import run_extract
from jobs.publish import run_publish
from jobs.score import command as run_score
from jobs.sequences import run_sequences
from jobs.tokenize import run_tokenize
from jobs.train_ranker import run_train_ranker
from jobs.train_tokenizer import run_train_tokenizer
from pipeline.config.file import load_config
from pipeline.lake.run import Run
from pipeline.on_ray.session import ray_session
from pipeline.on_spark.session import spark_session


def main() -> None:
    file, users, candidates, to = map(Path, sys.argv[1:5])
    config = load_config(file, sys.argv[5:])
    with Run("demo", config) as run, spark_session(config.spark, "every job"), ray_session(config.ray):
        run_extract(config, run.run_id)
        run_encode(config, run.run_id)
        tokenizer = run_train_tokenizer(config, run.run_id)
        run_tokenize(config, tokenizer, run.run_id)
        run_publish(config, tokenizer, run_id=run.run_id)
        run_sequences(config, run.run_id)
        ranker = run_train_ranker(config, run.run_id)
        run_evaluate(config, ranker, run.run_id)
        run_score(users, candidates, to, top=5, memories=False, ranker=ranker, config=file, overrides=sys.argv[5:])


if __name__ == "__main__":
    start(main)

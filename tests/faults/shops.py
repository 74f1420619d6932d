"""A small shop before and after every job, made once; and the jobs, as a killed process and undisturbed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import yaml
from kills import Fault
from nights import encode_night, tokenize_night, train
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.lake.artefacts import fingerprints
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.training.ranker import train_ranker
from pipeline.on_spark.extract import extract
from pipeline.on_spark.publish import publish
from pipeline.on_spark.purge import purge
from pipeline.on_spark.sequences import sequences
from pipeline.release.pointer import require_release
from pipeline.release.rollback import rollback

HERE = Path(__file__).parent
SECONDS = 400  # after which a job hangs
NOISE = ("log level", "logging level", "incubator", "WARNING", "Warning")  # of engines that have nothing to say
SETTINGS = {
    "report": {"nightly": False},
    "tokenizer": {
        **{"shared_levels": 2, "text_levels": 1, "image_levels": 1, "codebook_size": 8, "dim": 16, "hidden": 32},
        "min_steps": 60,
    },
    "ranker": {"dim": 16, "layers": 1, "heads": 2, "max_items": 20, "epochs": 2},
    "gates": {"max_collision_rate": 1, "min_perplexity": 0, "max_code_share": 1000, "max_delete_fraction": 1},
    "encoders": {"commit_rows": 100, "workers": 1},
    "spark": {
        "master": "local[2]",
        "conf": {"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": 2},
    },
}
FILE_ROWS = 50  # of a file of items, so that a job has several chunks

Told = list[float]
# What must have been done to the shop before each job.
BEFORE = {
    "extract": "shop",
    "encode": "extract",
    "train-tokenizer": "encode",
    "tokenize": "train-tokenizer",
    "publish": "tokenize",
    "sequences": "publish",
    "train-ranker": "sequences",
    "another-tokenizer": "publish",
    "backfill": "another-tokenizer",
    "changes": "publish",
    "nightly": "changes",
    "rollback": "nightly",
    "purge": "nightly",
}


@dataclass(frozen=True)
class Ended:
    """A job's process that has ended: its exit status (negative: the signal), and all that it wrote."""

    status: int
    output: str


def config_of(folder: Path, settings: tuple[str, ...] = ()) -> Config:
    return load_config(folder / "config.yaml", settings)


def make_shop(folder: Path) -> None:
    generate(folder, items=250, users=30, seed=0)
    file = folder / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    for section, values in SETTINGS.items():
        settings[section] = settings.get(section, {}) | values
    file.write_text(yaml.safe_dump(settings))


class Jobs:
    """The jobs in this process, undisturbed: each leaves its run, or for a night the run of each of its four jobs."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def __call__(self, job: str, folder: Path, told: Told | None = None) -> dict[str, Run]:
        if job == "shop":
            make_shop(folder)
            return {}
        if job == "changes":
            mutate(folder, 0.4, seed=1)
            return {}
        config = config_of(folder, ("tokenizer.seed=1",) if job == "another-tokenizer" else ())
        lake, progress = Lake(config.lake), None if told is None else lambda done, *_: told.append(done)
        newest = fingerprints(lake, "tokenizers")[-1:]
        spark, encoders = self._spark, encoder_fingerprints(config.encoders)
        planned: Mapping[str, Callable[[], Run]] = {
            "encode": lambda: encode_night(spark, config),
            "train-tokenizer": lambda: train(spark, config, progress),
            "another-tokenizer": lambda: train(spark, config, progress),
            "tokenize": lambda: tokenize_night(spark, config, *newest, encoders),
            "backfill": lambda: tokenize_night(spark, config, *newest, encoders, "backfill"),
        }
        does: Mapping[str, Callable[[Run], object]] = {
            "extract": lambda run: extract(spark, run),
            "publish": lambda run: publish(spark, run, *newest),
            "rollback": rollback,
            "purge": lambda run: purge(spark, run, older_than_days=0),
            "sequences": lambda run: sequences(spark, run),
            "train-ranker": lambda run: train_ranker(run, progress),
        }
        runs: dict[str, Run] = {}
        if job == "nightly":
            newest = [require_release(lake).tokenizer]
        for name in ("extract", "encode", "tokenize", "publish") if job == "nightly" else (job,):
            if name in planned:
                runs[name] = planned[name]()
                continue
            with Run(name, config) as runs[name]:
                does[name](runs[name])
        return runs


class Shops:
    """The shop as it is after each job, made when it is first asked for."""

    def __init__(self, root: Path, jobs: Jobs) -> None:
        self._root, self._jobs = root, jobs

    def after(self, job: str) -> Path:
        folder = self._root / job
        if not folder.exists():
            if job != "shop":
                shutil.copytree(self.before(job), folder)
            self._jobs(job, folder)
        return folder

    def before(self, job: str) -> Path:
        return self.after(BEFORE[job])


def arguments(job: str, folder: Path) -> list[str]:
    """The command line of a job, as its users run it."""
    line = [sys.executable, "-m", f"jobs.{job.replace('-', '_')}", "-c", str(folder / "config.yaml")]
    if job == "backfill":
        line += ["--tokenizer", fingerprints(Lake(config_of(folder).lake), "tokenizers")[-1]]
    if job == "purge":
        line += ["--older-than-days", "0"]
    return line


def run_process(job: str, folder: Path, scratch: Path, fault: Fault | None = None, **environment: str) -> Ended:
    """Run a job as a process of its own, to its end or its fault, and until all its processes are gone."""
    mark = scratch / f"{job}-struck"
    paths = [str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    variables = {"FAULT": json.dumps(asdict(fault) | {"mark": str(mark)})} if fault else {}
    if fault:
        paths.insert(0, str(HERE / "every_process"))
    env = os.environ | variables | environment | {"PYTHONPATH": os.pathsep.join(paths), "HISAM_TEST": str(scratch)}
    output = scratch / f"{job}-output"  # a file: Ray's processes may hold a pipe open for a while
    with output.open("w") as stream:
        process = subprocess.Popen(arguments(job, folder), stdout=stream, stderr=stream, env=env, cwd=scratch)
        try:
            status = process.wait(timeout=SECONDS)
        finally:
            process.kill()
            end_leftovers(str(scratch))
    said = output.read_text()
    if fault and not mark.exists():
        raise AssertionError(f"{fault} did not come to pass; the job ended {status} and said: {said}")
    if not fault:
        assert not any(noise in said for noise in NOISE), said
    return Ended(status, said)


def end_leftovers(scratch: str) -> None:
    """Wait until the processes that a job left behind have ended; one that does not within a minute is killed."""
    mine = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HISAM_TEST") == scratch:
                mine.append(process)
        except psutil.Error:  # it has ended, or belongs to somebody else
            continue
    _, alive = psutil.wait_procs(mine, timeout=60)
    for process in alive:
        process.kill()

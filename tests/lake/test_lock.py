"""One writer on a lake: who waits, who is refused, and what a dead run leaves, in a folder and in an object store."""

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from typer.testing import CliRunner

import pipeline.lake.lock
from jobs.cli import app
from pipeline.config.file import load_config
from pipeline.config.models import Config, LockSettings
from pipeline.demo.generator import mutate
from pipeline.errors import JobError
from pipeline.lake.lock import one_writer
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, RELEASES, SEMANTIC_IDS, VECTORS

HOLD = """
import multiprocessing, subprocess, sys, time
from pathlib import Path
from pipeline.config.file import load_config
from pipeline.lake.run import Run

config = load_config(Path("config.yaml"))
with Run("encode", config, run_id="the-holder"):
    if "children" in sys.argv:
        fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        fork.start()
        subprocess.Popen(["sleep", "600"], close_fds=False)
    if "engines" in sys.argv:
        import ray
        from pipeline.on_ray.session import ray_session
        from pipeline.on_spark.session import start_session
        start_session(config.spark, "holder").range(10).count()
        ray_session(config.ray).__enter__()
        ray.get(ray.remote(lambda: 1).remote())
    print("held", flush=True)
    sys.stdin.read()
"""

WRITERS = ("extract", "encode", "train-tokenizer", "tokenize", "backfill", "publish", "rollback", "sequences")
WRITERS += ("train-ranker", "nightly", "demo", "compact", "vacuum", "purge")

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    source = {"path": "items.csv", "format": "csv"}
    said = {"lake": "lake", "catalog": {"source": source, "id": "id", "text": "{t}"}}
    (tmp_path / "config.yaml").write_text(json.dumps(said))
    return load_config(tmp_path / "config.yaml")


@pytest.fixture
def hold(config: Config, tmp_path: Path) -> Iterator[Hold]:
    """Start a process that holds the lake until its standard input is closed; returns when it does."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def waiting(config: Config, seconds: float) -> Config:
    return config.model_copy(update={"lock": LockSettings(wait_seconds=seconds)})


def test_the_second_run_is_refused_and_told_who_writes(config: Config, hold: Hold, tmp_path: Path) -> None:
    holder = hold()
    second = subprocess.run(
        [sys.executable, "-m", "jobs", "rollback", "-c", str(tmp_path / "config.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    named = f"is being written by encode (run the-holder, process {holder.pid} on {os.uname().nodename}, since 2"
    assert named in second.stderr
    [record] = (tmp_path / "lake" / "runs").glob("*/rollback.json")
    written = json.loads(record.read_text())
    assert written["status"] == "failed"
    assert named in written["error"]


def test_a_run_waits_says_so_once_and_goes_on(
    config: Config, hold: Hold, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = hold()
    assert holder.stdin is not None

    class EndTheHolder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            holder.stdin.close()  # type: ignore[union-attr]

    ending = EndTheHolder()
    monkeypatch.setattr(pipeline.lake.lock.logger, "handlers", [ending])
    with Run("extract", waiting(config, 120)) as run:
        assert holder.wait() == 0
    assert run.record()["status"] == "done"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("waiting up to 120 s for ")
    assert "written by encode (run the-holder" in line


@pytest.mark.parametrize("name", ["acquire", "write"])
def test_a_full_disk_is_told_as_one_and_the_lock_is_given_back(
    config: Config, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Lake.create(config.lake)
    with monkeypatch.context() as patch:
        patch.setattr(*{"acquire": (FileLock, "acquire", full), "write": (Lake, "write_json", full)}[name])
        with pytest.raises(OSError, match="No space left on device"), Run("extract", config):
            pass
    with Run("extract", config):
        pass


def test_a_wait_ends(config: Config, hold: Hold) -> None:
    hold()
    with (
        pytest.raises(JobError, match=r"still being written by encode .* after 1\.5 s"),
        Run("extract", waiting(config, 1.5)),
    ):
        pytest.fail("there are two writers")


def test_a_killed_runs_lock_vanishes_with_it_whatever_it_had_started(
    config: Config, hold: Hold, tmp_path: Path
) -> None:
    holder = hold("children")
    children = psutil.Process(holder.pid).children()
    assert len(children) == 2
    try:
        holder.kill()
        holder.wait()
        assert (tmp_path / "lake" / "lock.json").exists()
        assert all(child.is_running() for child in children)
        with Run("extract", config) as run:
            assert run.run_id in (tmp_path / "lake" / "lock.json").read_text()
    finally:
        for child in children:
            child.kill()
    assert not (tmp_path / "lake" / "lock.json").exists()


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.ray
def test_engines_keep_no_lock_of_a_driver_that_was_killed(config: Config, hold: Hold) -> None:
    holder = hold("engines")
    children = psutil.Process(holder.pid).children(recursive=True)
    names = {child.name() for child in children}
    assert "java" in names
    assert "raylet" in names
    try:
        holder.kill()
        holder.wait()
        assert any(child.is_running() for child in children)
        with Run("extract", config) as run:
            pass
        assert run.record()["status"] == "done"
    finally:
        for child in psutil.wait_procs(children, timeout=30)[1]:
            child.kill()


def test_jobs_within_a_hold_share_it_and_no_other_thread_does(config: Config) -> None:
    refused: list[str] = []

    def contend() -> None:
        try:
            with one_writer(Lake(config.lake), config.lock, "contender", "r"):
                refused.append("not at all")
        except JobError as error:
            refused.append(str(error))

    with Run("nightly", config) as night:
        with Run("extract", config, run_id=night.run_id):
            pass
        thread = threading.Thread(target=contend)
        thread.start()
        thread.join()
        assert f"written by nightly (run {night.run_id}, process {os.getpid()}" in refused[0]
    with Run("extract", config):
        pass


def test_readers_never_wait(config: Config, hold: Hold) -> None:
    hold()
    assert Lake.open(config.lake).names("runs") == []
    for job in ("export", "evaluate", "explain", "status"):
        with Run(job, waiting(config, 120), writes=False) as run:
            assert run.lake.version(ITEMS) is None
        assert run.record()["seconds"]["total"] < 60


def test_every_job_that_writes_is_refused(
    config: Config, hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold()
    monkeypatch.setattr(pipeline.lake.lock, "GRACE_SECONDS", 0)
    jobs: dict[str, list[str]] = {name: ["-c", str(tmp_path / "config.yaml")] for name in WRITERS}
    jobs["backfill"] += ["--tokenizer", "0123456789abcdef"]
    jobs["demo"] = [str(tmp_path), "--items", "120", "--users", "20"]
    for command, arguments in jobs.items():
        ended = CliRunner().invoke(app, [command, *arguments])
        assert isinstance(ended.exception, JobError), command
        assert "being written by encode" in str(ended.exception)
        [record] = (tmp_path / "lake" / "runs").glob(f"*/{command}.json")
        assert json.loads(record.read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_two_nights_that_start_together_are_one_after_the_other(shop: Path) -> None:
    settings = ["--set", "gates={max_collision_rate: 1, min_perplexity: 0, max_delete_fraction: 1}"]
    settings += ["--set", "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16}"]
    settings += ["--set", "tokenizer.min_steps=40"]

    def start(job: str, wait_seconds: int = 0) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", f"jobs.{job}", "-c", str(shop / "config.yaml"), *settings]
        command += ["--set", f"lock.wait_seconds={wait_seconds}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def two_nights(wait_seconds: int) -> list[tuple[int, str]]:
        mutate(shop, 0.3, seed=wait_seconds)
        with start("nightly", wait_seconds) as one, start("nightly", wait_seconds) as other:
            said = [process.communicate()[1] for process in (one, other)]
        return sorted(zip((one.returncode, other.returncode), said, strict=True))

    def check(releases: int) -> None:
        lake = Lake(str(shop / "lake"))
        assert sorted(lake.read(RELEASES, ["version"])["version"].to_pylist()) == [*range(1, releases + 1)]
        for table, also in ((ITEMS, "deleted"), (VECTORS, "fault"), (SEMANTIC_IDS, "sid")):
            rows = [tuple(row.values()) for row in lake.read(table, [*table.key, also]).to_pylist()]
            assert len(rows) == len(set(rows)) > 100, table.name

    for job in ("extract", "encode", "train_tokenizer"):
        with start(job) as process:
            assert process.communicate()[1] is not None
        assert process.returncode == 0
    (done, _), (refused, said) = two_nights(0)
    assert (done, refused) == (0, 1), said
    assert "is being written by nightly (run " in said
    check(releases=1)
    ends = two_nights(900)
    assert [status for status, _ in ends] == [0, 0], ends
    assert sum("waiting up to 900 s for " in said for _, said in ends) == 1
    check(releases=2)

"""What times the parts of a job, and what it says of itself meanwhile; on clocks that the tests turn."""

import json
import logging
import time
from pathlib import Path

import pytest
from handmade import config_of

from pipeline.lake import progress as lines
from pipeline.lake.phases import Phases
from pipeline.lake.progress import Done, Progress
from pipeline.lake.run import Run, latest, running


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def failing(clock: Clock, at: float) -> None:
    clock.now = at
    raise KeyError


def test_a_phase_within_another_is_timed_once_and_the_rest_is_one_phase() -> None:
    clock = Clock()
    phases = Phases(clock)
    clock.now = 1
    with phases.of("write"):
        clock.now = 3
        with phases.of("commit"), pytest.raises(KeyError), phases.of("check"):
            failing(clock, at=10)
        assert phases.current == "write"
        clock.now = 14
    with phases.of("commit"):
        clock.now = 15
    clock.now = 20
    assert phases.seconds() == {"write": 6, "commit": 1, "check": 7, "rest": 6}
    assert list(phases.seconds())[-1] == "rest"
    clock.now = 21
    assert sum(phases.seconds().values()) == 21


def test_a_line_every_half_minute_says_how_far_work_has_come() -> None:
    clock, phases = Clock(), Phases()
    progress, said = Progress("extract", phases, clock), []
    found: list[Done | None] = [None]

    def until(seconds: float, *, rate: float = 0) -> None:
        while clock.now < seconds:
            clock.now += 2
            if found[0]:
                done = found[0]
                found[0] = Done(done.done + 2 * rate, done.total, done.unit, done.figures)
            line, _ = progress.look()
            said.append(line) if line else None

    with phases.of("prepare"):
        until(40)
        with progress.of(lambda: found[0]):
            found[0] = Done(1000, 10_000, "rows")  # a run that goes on: its rate is that of now
            until(70, rate=10)
            found[0] = Done(0, 5, "epochs", "loss 0.5")
            until(100, rate=0.01)
            found[0] = Done(10, None, "rows")
            until(130, rate=2)
        with progress.of(lambda: 1 // 0):  # an engine that is gone
            until(160)
    until(190)
    assert said == [
        "extract: prepare: 30 s since the job began",
        "extract: prepare: 1,200 of 10,000 rows, 10.0 a second, 15 min left",
        "extract: prepare: 0.2 of 5 epochs, 0.6 a minute, 8 min left, loss 0.5",
        "extract: prepare: 50 rows, 2.0 a second",
        "extract: prepare: 2 min since the job began",
        "extract: 3 min since the job began",
    ]


def test_the_end_of_a_job_within_a_job_is_a_word_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SECONDS", 0.5)
    monkeypatch.setattr(lines, "LOOK_SECONDS", 600)
    with Run("nightly", config_of(tmp_path)) as night:
        with Run("extract", night.config, run_id=night.run_id):
            time.sleep(0.6)
        assert night.progress.look() == (None, None)
        time.sleep(0.6)
        line, _ = night.progress.look()
        assert line is not None


def test_jobs_within_a_job_are_its_phases_and_alone_speak(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SECONDS", 0.05)
    monkeypatch.setattr(lines, "LOOK_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    with Run("nightly", config_of(tmp_path)) as night:
        with Run("extract", night.config, run_id=night.run_id) as job, job.phase("write"):
            assert running() is latest() is job
            caplog.clear()
            while len(caplog.messages) < 2:
                time.sleep(0.01)
            assert all(line.startswith("extract: write: ") for line in caplog.messages)
        assert running() is night
    assert running() is None
    assert latest() is night
    for run in (night, job):
        record = json.loads((Path(run.lake.uri) / "runs" / run.run_id / f"{run.job}.json").read_text())
        seconds = record["seconds"]
        assert seconds.pop("total") == pytest.approx(sum(seconds.values()), abs=0.001 * len(seconds))
    assert {"lock", "extract", "rest"} == night.seconds.keys()
    assert night.seconds["extract"] >= job.seconds["write"] > 0.04

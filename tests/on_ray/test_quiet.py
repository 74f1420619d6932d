"""What the terminal is spared of Ray, and what it is not."""

import os
from contextlib import suppress

import pytest
import ray

from pipeline.on_ray.quiet import log_raylets, quiet_start

STARTED = "WARNING: 12 PYTHON worker processes have been started on node: a with address: 127.0.0.1. This could be …"
KILLED = "2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed.\nRefer to the …"


def test_workers_that_died_are_told_of_and_workers_that_started_are_not(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = "print_to_stdstream"
    monkeypatch.setattr(ray._private.worker, hook, getattr(ray._private.worker, hook))  # what it was comes back
    log_raylets()
    told = {"lines": [STARTED, KILLED, ""], "pid": "raylet", "is_err": False}
    ray._private.worker.print_to_stdstream(told, ignore_prefix=False)
    assert caplog.messages == [f"ray: {KILLED.splitlines()[0]}"]
    assert capsys.readouterr() == ("", "")


def test_what_is_said_below_python_while_ray_starts_comes_after_but_for_the_log_level(
    capfd: pytest.CaptureFixture[str],
) -> None:
    level = b"[2026-01-01 00:00:00,0 I 1 1] logging.cc:303: Set ray log level from environment variable X to 3\n"
    with suppress(OSError), quiet_start():
        os.write(2, b"a fault\n" + level + b"another")
        raise OSError
    assert capfd.readouterr().err == "a fault\nanother"

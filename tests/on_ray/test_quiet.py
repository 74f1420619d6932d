"""What the terminal is spared of Ray, and what it is not."""

import pytest
import ray

from pipeline.on_ray.session import log_raylets

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

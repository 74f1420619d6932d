"""A run that was suspended past its lease, and wakes up when another one has written, writes nothing any more."""

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pyarrow as pa
import pytest

import pipeline.lake.lease
from pipeline.config.models import Config
from pipeline.lake.commit import RUNS, append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import QUARANTINE

SECONDS = 4.0  # of a lease; the store tells times in whole seconds

SUSPENDED = """
import os, signal, sys
import pyarrow as pa
from deltalake import DeltaTable
import pipeline.lake.lease
from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.commit import append
from pipeline.lake.lease import StoreLease
from pipeline.lake.run import Run
from schemas.tables import QUARANTINE

pipeline.lake.lease.LEASE_SECONDS = float(sys.argv[1])
config, when = Config.model_validate_json(sys.argv[2]), sys.argv[3]
put = DeltaTable.create_write_transaction

def suspend():
    print("here", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

def suspend_and_put(*given, **how):
    suspend()
    put(*given, **how)

def rows(item):
    row = {"item_id": item, "reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    return pa.Table.from_pylist([row], schema=QUARANTINE.schema)

if "blind" in when:  # nothing but the table's log can stop it
    StoreLease.check, StoreLease._renew = lambda lease: None, lambda lease: None
try:
    with Run("encode", config) as run:
        append(run.lake, QUARANTINE, rows("before"))
        if "put" in when:
            DeltaTable.create_write_transaction = suspend_and_put
        else:
            suspend()
        append(run.lake, QUARANTINE, rows("stale"))
        print("committed", flush=True)
except JobError as error:
    sys.exit(str(error))
"""

CASES = ("before the check", "before the put", "before the check, blind", "before the put, blind")


@pytest.fixture
def configs(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    monkeypatch.setattr(pipeline.lake.lease, "LEASE_SECONDS", SECONDS)
    catalog = {"source": {"path": "items.csv", "format": "csv"}, "id": "id", "text": "{t}"}

    def config() -> Config:
        lake = f"s3://lakes/{uuid.uuid4().hex}"
        return Config.model_validate(
            {"lake": lake, "storage_options": s3, "catalog": catalog, "lock": {"wait_seconds": 60}}
        )

    return {f"{case}, the other {other}": config() for case in CASES for other in ("writes", "only takes over")}


@pytest.fixture
def suspended(configs: dict[str, Config]) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """A run in a process of its own by case, each suspended where the case says."""
    processes = {}
    for case, config in configs.items():
        command = [sys.executable, "-c", SUSPENDED, str(SECONDS), config.model_dump_json(), case]
        processes[case] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for process in processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n", process.communicate()[1]
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def test_a_run_that_was_suspended_past_its_lease_writes_nothing(
    configs: dict[str, Config], suspended: dict[str, "subprocess.Popen[str]"]
) -> None:
    row = {"item_id": "later", "reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    for case, process in suspended.items():
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        expected = ["before"]
        with Run("nightly", configs[case]) as run:
            assert run.lake.writer is not None
            versions = run.lake.writer.versions
            if case.endswith("writes"):
                append(run.lake, QUARANTINE, pa.Table.from_pylist([row], schema=QUARANTINE.schema))
                expected.append("later")
        process.send_signal(signal.SIGCONT)
        said, error = process.communicate(timeout=60)
        assert process.returncode == 1, case
        assert "committed" not in said
        assert len(error.strip().splitlines()) <= 2, error  # the sentence, and that the lease was no longer ours
        if "blind" in case:
            assert "quarantine in s3://lakes/" in error
            assert "has been written by a later run than encode (" in error
        assert "run it again" in error
        lake = Lake.open(configs[case].lake, configs[case].storage_options)
        assert sorted(lake.read(QUARANTINE, ["item_id"])["item_id"].to_pylist()) == expected, case
        assert lake.delta(QUARANTINE).transaction_version(RUNS) in versions

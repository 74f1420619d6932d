"""The lock of a lake in an object store, on a real S3 server: a lease that grows old, is taken over, and is lost."""

import json
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, NotFoundError, PreconditionError

import pipeline.lake.lease
from pipeline.config.models import Config, LockSettings
from pipeline.errors import JobError, LeaseLost
from pipeline.lake.lease import StoreLease
from pipeline.lake.lock_holder import Holder
from pipeline.lake.run import Run

SECONDS = 6.0  # of a lease; the store tells times in whole seconds

HOLD = """
import sys
import pipeline.lake.lease
from pipeline.config.models import Config
from pipeline.lake.run import Run

pipeline.lake.lease.LEASE_SECONDS = float(sys.argv[1])
with Run("encode", Config.model_validate_json(sys.argv[2]), run_id="the-holder"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def config(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Config:
    """A lake of its own, whose leases are short."""
    monkeypatch.setattr(pipeline.lake.lease, "LEASE_SECONDS", SECONDS)
    source = {"path": "items.csv", "format": "csv"}
    catalog = {"source": source, "id": "id", "text": "{t}"}
    lake = f"s3://lakes/{uuid.uuid4().hex}"
    return Config.model_validate({"lake": lake, "storage_options": s3, "catalog": catalog})


def lease(config: Config) -> StoreLease:
    store = Run("x", config).lake.store
    assert store is not None
    return StoreLease(store.obstore(config.lake), config.lake)


def written(run: Run) -> dict[str, Any]:
    with run.lake.filesystem.open_input_file(run.lake.path(f"runs/{run.run_id}/{run.job}.json")) as file:
        return json.loads(file.read())


def leave(config: Config, **content: Any) -> None:
    """Another run's lease, as it lies in the store."""
    other = {"free": False, "id": "other", "seconds": 600, "writes": 1, "job": "nightly", "run_id": "7"}
    obstore.put(lease(config)._store, "lock.json", json.dumps(other | content).encode())


def test_one_run_has_the_lease_and_gives_it_back(config: Config) -> None:
    with Run("nightly", config) as night:
        with Run("extract", config, run_id=night.run_id):
            pass
        assert not lease(config).take(Holder("encode", "r"))
    second = lease(config)
    assert second.take(Holder("encode", "r"))
    refused = Run("extract", config)
    with pytest.raises(JobError, match=r"s3://.* is being written by encode \(run r, process \d+ on "), refused:
        pytest.fail("there are two writers")
    assert written(refused)["status"] == "failed"
    second.release()
    with Run("extract", config) as run, Run("evaluate", config, writes=False):
        pass
    assert written(run)["status"] == "done"


def test_a_dead_runs_lease_is_kept_for_its_seconds_and_then_taken_over(config: Config) -> None:
    leave(config)
    with pytest.raises(JobError, match=r"by nightly \(run 7, .*within 600 s if it is dead"), Run("extract", config):
        pytest.fail("there may be two writers")
    leave(config, seconds=1)
    patient = config.model_copy(update={"lock": LockSettings(wait_seconds=60)})
    with Run("extract", patient) as run:
        assert not lease(config).take(Holder("encode", "r"))
    assert written(run)["status"] == "done"


@pytest.mark.slow
def test_a_live_lease_outlasts_its_seconds_and_a_killed_ones_does_not(config: Config) -> None:
    command = [sys.executable, "-c", HOLD, str(SECONDS), config.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            time.sleep(SECONDS * 1.5)
            named = rf"written by encode \(run the-holder, process {holder.pid} on"
            with pytest.raises(JobError, match=named), Run("extract", config):
                pytest.fail("there are two writers")
        finally:
            holder.kill()
    patient = config.model_copy(update={"lock": LockSettings(wait_seconds=60)})
    with Run("extract", patient) as run:
        pass
    assert written(run)["status"] == "done"


def test_a_job_whose_lease_is_lost_stops_where_it_is(config: Config) -> None:
    run = Run("encode", config)
    reached = []

    def job() -> None:
        with run:
            leave(config)
            time.sleep(60)
            reached.append("the next commit")

    with pytest.raises(JobError, match=r"the lease on s3://.* was lost to nightly \(run 7, .*run it again"):
        job()
    assert not reached
    assert written(run)["status"] == "failed"
    assert "was lost to nightly" in written(run)["error"]
    content = json.loads(bytes(obstore.get(lease(config)._store, "lock.json").bytes()))
    assert content["id"] == "other"  # it is not ours to give back


def test_a_job_stops_before_a_lease_that_cannot_be_renewed_ends(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any, **__: Any) -> None:
        raise GenericError("no such host")

    def job() -> None:
        with Run("encode", config), monkeypatch.context() as broken:
            broken.setattr(obstore, "put", put)
            time.sleep(60)

    with pytest.raises(JobError, match=r"was lost, as it could not be renewed in time \(no such host\)"):
        job()
    assert not lease(config).take(Holder("encode", "r"))  # nobody could have taken over yet


def test_a_lease_that_vanishes_with_its_bucket_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: Any, **__: Any) -> None:
        raise PreconditionError("no")

    def get(*_: Any, **__: Any) -> None:
        raise NotFoundError("404: NoSuchBucket")

    def job() -> None:
        with Run("encode", config), monkeypatch.context() as broken:
            broken.setattr(obstore, "put", put)
            broken.setattr(obstore, "get", get)
            time.sleep(60)

    with pytest.raises(LeaseLost, match=r"could not be renewed in time \(404: NoSuchBucket\)"):
        job()


def test_an_answer_that_is_lost_loses_no_lease(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.lake.lease, "LEASE_SECONDS", 60)
    put, faults = obstore.put, [PreconditionError("tried again"), GenericError("timed out")]

    def lose_the_answer(*given: Any, **how: Any) -> None:
        put(*given, **how)
        raise faults.pop(0)

    one = lease(config)
    with monkeypatch.context() as losing:
        losing.setattr(obstore, "put", lose_the_answer)
        assert one.take(Holder("encode", "r"))
        with pytest.raises(GenericError, match="timed out"):
            one._write(one._version)
    assert one._write(one._version)
    one.check()
    one.release()
    with Run("extract", config):
        pass


def test_of_many_that_take_it_at_once_one_has_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.lake.lease, "LEASE_SECONDS", 60)
    for _ in range(10):
        leases = [lease(config) for _ in range(4)]
        had: list[StoreLease] = []
        together = threading.Barrier(len(leases))

        def take(one: StoreLease, had: list[StoreLease] = had, together: threading.Barrier = together) -> None:
            together.wait()
            if one.take(Holder("encode", "r")):
                had.append(one)

        threads = [threading.Thread(target=take, args=(one,)) for one in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [holder] = had
        holder.release()


def test_what_is_no_lease_is_left_alone(config: Config) -> None:
    obstore.put(lease(config)._store, "lock.json", b"[]")
    with pytest.raises(JobError, match=r"lock\.json is no lease: delete it when no job is running"), Run("x", config):
        pytest.fail("there may be two writers")

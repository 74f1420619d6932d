"""The Ray cluster of a job, as the configuration asks for it."""

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import ceil

import ray
import ray.data
from ray.data import DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import AuthenticationError
from ray.util.placement_group import placement_group, remove_placement_group

from pipeline.config.models import RaySettings
from pipeline.errors import AGAIN, JobError, first_line
from pipeline.lake.phases import RAY_START
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.quiet import log_raylets, quiet_data_logs, quiet_start
from pipeline.on_ray.rows_done import RowsDone, rows_done

logging.getLogger("ray").setLevel(logging.ERROR)
logger = logging.getLogger(__name__)

REACHED_SECONDS = 10.0  # in which a cluster's port answers
STARTED_HERE = "hisam.started_here"
LEAST_CORES = 2  # one to compute and one to read and write
MANY_FILES = 500  # from which on actors of their own read the footers; they take seconds to start, at every read


@contextmanager
def ray_for(run: Run, until_end: ExitStack | None = None) -> Iterator[None]:
    """The cluster of a job: what its start takes is a phase of the run, whose lines tell of Ray Data's rows.

    It ends with the job or, where others are to share it, when ``until_end`` is closed.

    Raises:
        JobError: as :func:`ray_session`; or Ray Data made no progress for ``ray.stall_seconds``.
    """
    with ExitStack() as own:
        with run.phase(RAY_START):
            (until_end or own).enter_context(ray_session(run.config.ray))
        try:
            with run.progress.of(rows_done()):
                yield
        except ExecutionTimeoutError as stall:
            raise JobError(_said_of(stall)) from stall


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """A cluster started here or joined for the length of the block; blocks within it share it.

    Raises:
        JobError: there is no cluster at the address, or it wants a token, or has no core to work on.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or settings.address
    local = address == "local"
    # Ray's CPUs are counters: one more than there are cores goes to reading and writing beside the workers.
    cpus = settings.num_cpus or len(os.sched_getaffinity(0)) + 1
    size = {"num_cpus": cpus, "num_gpus": settings.num_gpus, "include_dashboard": False} if local else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would start its workers at niceness 15, and anything beside them would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not local:
        _check_port(address)
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with quiet_start():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **size)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(f"ray.address: {_why_not_joined(address, error)}") from error
    except OSError as error:
        raise JobError(
            f"Ray cannot start: {first_line(error)}; it keeps its token under the home folder: let HOME be one "
            "that can be written, or set RAY_AUTH_TOKEN"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)  # Ray's own would end the process without a word
    quiet_data_logs()
    log_raylets()
    DataContext.get_current().execution_no_progress_timeout_s = settings.stall_seconds
    DataContext.get_current().custom_execution_callback_classes = [RowsDone]
    DataContext.get_current().set_config(STARTED_HERE, local)
    with _witness():
        try:
            _wait_for_cores(address, settings.stall_seconds)
            yield
        finally:
            ray.shutdown()


def _check_port(address: str) -> None:
    """Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise JobError(f"ray.address: no cluster at {address}: {error}") from error


def _why_not_joined(address: str, error: Exception) -> str:
    """A cluster that refuses a token, or asks for one, tells Ray's driver so within an error of the connection."""
    causes = [error, error.__cause__, error.__context__]
    if not any(sign in str(cause) for cause in causes for sign in ("Unauthenticated", "AuthToken", "authentication")):
        return f"no cluster at {address}: {first_line(error)}"
    given = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        said = "asks for a token, and RAY_AUTH_MODE is not token"
    elif isinstance(error, AuthenticationError):
        said = "is to be joined with a token (RAY_AUTH_MODE=token), and there is none"
    else:
        named = next((name for name in given if name in os.environ), "~/.ray/auth_token")
        said = f"refuses the token of {named}"
    return (
        f"the cluster at {address} {said}: set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN, "
        "in a file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
    )


def _wait_for_cores(address: str, seconds: float) -> None:
    """A cluster that scales may have no node yet: it is asked for one.

    Raises:
        JobError: none came.
    """
    if gpus() or ray.cluster_resources().get("CPU", 0) >= LEAST_CORES:
        return
    logger.warning("ray: the cluster at %s has no %d cores yet: waiting for nodes", address, LEAST_CORES)
    asked = placement_group([{"CPU": 1}] * LEAST_CORES)
    try:
        if not asked.wait(seconds):
            raise JobError(
                f"the cluster at {address} has not come to {LEAST_CORES} free cores in {seconds:g} s "
                "(ray.stall_seconds): add nodes, or wait for longer"
            )
    finally:
        remove_placement_group(asked)


def _said_of(stall: ExecutionTimeoutError) -> str:
    """What was waited for, and what the cluster still has."""
    waiting = "; ".join(line.strip(" -") for line in str(stall).splitlines() if line.startswith("  - "))
    nodes, free, there = ray.nodes(), ray.available_resources(), ray.cluster_resources()
    alive = sum(node["Alive"] for node in nodes)
    has = ", ".join(f"{free.get(kind, 0):g} of {there[kind]:g} {kind} free" for kind in ("CPU", "GPU") if kind in there)
    return (
        f"Ray made no progress for {stall_seconds():g} s (ray.stall_seconds), waiting for {waiting}; "
        f"{alive} of {len(nodes)} nodes are left, {has}; {AGAIN}"
    )


def stall_seconds() -> float:
    """After how many seconds without progress a job fails."""
    return DataContext.get_current().execution_no_progress_timeout_s


@contextmanager
def _witness() -> Iterator[None]:
    """Say so if this process ends before the block does.

    Ray ends a driver from within, past every ``except`` and without a word, when its raylet or its control process is
    dead; so a shell waits for a line from here, and speaks if none comes.
    """
    words = f"hisam: the job died: it, or a process of Ray's, was killed or ran out of memory; {AGAIN}"
    with subprocess.Popen(["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', words], stdin=subprocess.PIPE) as shell:
        try:
            yield
        finally:
            shell.communicate(b"ended\n")


def started_here() -> bool:
    """Whether the cluster is this machine's and this process's own, and not one that was joined."""
    return bool(DataContext.get_current().get_config(STARTED_HERE, False))


def gpus() -> int:
    """GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def share_of_cores(processes: int) -> int:
    """Threads for one of so many processes on this machine; Ray would give each the one core that it reserved."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def share_of_node(workers: int) -> int:
    """Threads for one of so many workers of the cluster: its share of the cores of the node that it is on."""
    if not ray.is_initialized():
        return share_of_cores(workers)
    kind, here = "GPU" if gpus() else "CPU", ray.get_runtime_context().get_node_id()
    return share_of_cores(workers_on(here, workers, room_of_nodes(kind)))


def workers_on(node: str, workers: int, room: Mapping[str, float]) -> int:
    """About how many of so many workers are on a node, when Ray has spread them by the ``room`` that each node has."""
    return max(1, ceil(workers * room[node] / max(1, sum(room.values()))))


def room_of_nodes(kind: str) -> dict[str, float]:
    """What each node that is there has in all of a kind of resource."""
    return {node["NodeID"]: node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]}


def worker_device() -> str:
    """Where a worker computes: on the GPU that Ray gave it, else on its core."""
    return "cuda" if ray.is_initialized() and ray.get_gpu_ids() else "cpu"


def read_files(lake: Lake, files: list[str], columns: list[str], block_rows: int | None = None) -> Dataset:
    """``columns`` of some files of the lake's tables, as paths in its filesystem; the others are never opened.

    ``block_rows`` cuts them into blocks of so many rows, so that few files still make work for many workers.
    """
    DataContext.get_current().use_datasource_v2 = len(files) > MANY_FILES
    rows = ray.data.read_parquet(files, filesystem=lake.filesystem, partitioning=None).select_columns(columns)
    return rows.repartition(target_num_rows_per_block=block_rows) if block_rows else rows

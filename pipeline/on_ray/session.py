"""The Ray cluster of a job, as the configuration asks for it."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray.data import DataContext, Dataset

from pipeline.config.models import RaySettings
from pipeline.errors import AGAIN, JobError
from pipeline.lake.storage import Lake

logging.getLogger("ray").setLevel(logging.ERROR)


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """A cluster started here or joined for the length of the block; blocks within it share it.

    Raises:
        JobError: there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or settings.address
    local = address == "local"
    # Ray's CPUs are counters: one more than there are cores goes to reading and writing beside the actors.
    cpus = settings.num_cpus or len(os.sched_getaffinity(0)) + 1
    size = {"num_cpus": cpus, "num_gpus": settings.num_gpus, "include_dashboard": False} if local else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would start its workers at niceness 15, and anything beside them would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **size)
    except (ConnectionError, ValueError) as error:
        raise JobError(f"ray.address: no cluster at {address}: {error}") from error
    quiet_data_logs()
    with _witness():
        try:
            yield
        finally:
            ray.shutdown()


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


def quiet_data_logs() -> None:
    """Progress bars on a terminal, nothing elsewhere: Ray Data raises errors, and has a file for their tracebacks."""
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else a JobError's sentence is lost on its way to the driver
    log = logging.getLogger("ray.data")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray."):  # the terminal's
            handler.setLevel(logging.CRITICAL)


def gpus() -> int:
    """GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def share_of_cores(processes: int) -> int:
    """Threads for one of so many processes on this machine; Ray would give each the one core that it reserved."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def actor_device() -> str:
    """Where an actor computes: on the GPU that Ray gave it, else on its cores."""
    return "cuda" if ray.get_gpu_ids() else "cpu"


def spare_cores() -> int:
    """Cores of the cluster but one, which is left for reading."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)


def actor_pool(workers: int | None, batches: int, *, on_gpu: bool = True) -> dict[str, Any]:
    """How many actors a map of so many batches runs on and what each takes.

    A GPU each, else a core each of :func:`spare_cores`; never more actors than batches, so that a small night does not
    load a model many times over.
    """
    if on_gpu and gpus():
        return {"concurrency": min(workers or gpus(), batches), "num_gpus": 1}
    cores = spare_cores()
    return {"concurrency": min(workers or cores, cores, batches), "num_cpus": 1}


def block_rows(rows: int, batch: int, actors: int, most: int = 16) -> int:
    """Rows of a block, whole batches: each of so many actors gets about four blocks, and none more than ``most``."""
    return batch * max(1, min(most, rows // (4 * batch * actors)))


def read_files(lake: Lake, files: list[str], columns: list[str], block_rows: int | None = None) -> Dataset:
    """``columns`` of some files of the lake's tables, as paths in its filesystem; the others are never opened.

    ``block_rows`` cuts them into blocks of so many rows, so that few files still make work for many actors.
    """
    rows = ray.data.read_parquet(files, filesystem=lake.filesystem, partitioning=None).select_columns(columns)
    return rows.repartition(target_num_rows_per_block=block_rows) if block_rows else rows

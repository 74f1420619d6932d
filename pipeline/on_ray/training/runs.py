"""Ray Train runs that outlive their workers and their driver, for tokenizers and rankers alike.

Workers start again from the last checkpoint when one of them dies, and so does a run of the same name after the driver
died: Ray Train keeps the list of a run's checkpoints beside them.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import ray
import ray.data
import ray.train
from ray.data import ExecutionOptions
from ray.exceptions import RayActorError
from ray.train import ControllerError, Result, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from pipeline.on_ray.session import gpus, stall_seconds

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
TELL_SECONDS = 1.0  # between two figures, or signs of life, of rank 0 within a pass
MAX_FAILURES = 8  # deaths of workers that a run survives
START_SECONDS = 60  # that Ray Train waits for its workers to find room, before it counts that as a failure of its own
STATE = "training.safetensors"
AGAIN = "run it again to go on from the last checkpoint"
UNREADABLE = "CheckpointManagerInitializationError"  # a kill caught Ray Train in writing its list of checkpoints

Figure = tuple[float, int, dict[str, float]] | tuple[()]
Progress = Callable[[float, int, dict[str, float]], None]

ALIVE: Figure = ()  # in place of figures, of work that has none: nobody is shown it


def run(
    loop: Callable[[dict[str, Any]], Any],
    job: Any,
    figures: Queue,
    *,
    workers: int,
    spare_cpus: float = 0,
    lake: Lake,
    checkpoints: str,
    datasets: dict[str, ray.data.Dataset] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run ``loop`` in ``workers`` processes, a GPU each where Ray has any.

    Args:
        loop: gets ``{"job": a reference to job}``.
        job: what the workers are told.
        figures: the workers put into it what ``progress`` is called with, in this process, or :data:`ALIVE`; shut down
            in the end.
        workers: how many.
        spare_cpus: that the workers leave to others, as the datasets' readers.
        lake: that ``checkpoints`` is a folder of, which every worker must reach.
        checkpoints: one that an earlier run left is gone on from.
        datasets: streamed to the workers in one fixed order, an equal share to each.
        progress: epochs done, of how many, and what to show.

    Raises:
        JobError: Ray lacks the GPUs, workers died again and again, or found no room or told of nothing for
            ``ray.stall_seconds``.
    """
    if 0 < gpus() < workers:
        figures.shutdown()
        raise JobError(f"workers is {workers}, but Ray has {gpus()} GPUs: lower it or add GPUs")
    storage, name = lake.path(checkpoints).rsplit("/", 1)
    cpus = min(1.0, max(0.0, ray.cluster_resources().get("CPU", 1) - spare_cpus) / workers)
    try:
        for attempt in (1, 2):
            trainer = TorchTrainer(
                loop,
                train_loop_config={"job": ray.put(job)},
                datasets=datasets,
                dataset_config=ray.train.DataConfig(execution_options=ExecutionOptions(preserve_order=True)),
                scaling_config=ray.train.ScalingConfig(
                    num_workers=workers,
                    use_gpu=gpus() > 0,
                    resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpus() else {}),
                ),
                run_config=ray.train.RunConfig(
                    name=name,
                    storage_path=storage,
                    storage_filesystem=lake.filesystem,
                    checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                    failure_config=ray.train.FailureConfig(
                        max_failures=MAX_FAILURES, controller_failure_limit=int(stall_seconds() // START_SECONDS)
                    ),
                ),
            )
            try:
                return _follow(trainer, figures, progress)
            except RayActorError as error:
                if attempt == 2 or UNREADABLE not in str(error):
                    raise JobError(f"training failed: Ray Train's controller died; {AGAIN}") from error
                logger.warning("%s cannot be read: training begins anew", lake.path(checkpoints))
                lake.delete(checkpoints)
        raise AssertionError("unreachable")
    except TrainingFailedError as error:
        raise JobError(f"training failed: {_cause(error)}; {AGAIN}") from error
    finally:
        figures.shutdown()


def figures_queue() -> Queue:
    """What workers tell of their progress, kept on this machine: the loss of another must not end the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


class Tell:
    """What a worker says while it works: rank 0's word, now and then, of however many calls."""

    def __init__(self, figures: Queue, rank: int) -> None:
        self._figures, self._heard, self._told_at = figures, rank == 0, time.monotonic()

    def __call__(self, figure: Callable[[], Figure] = lambda: ALIVE) -> None:
        """``figure`` is asked for what is told, if anything is."""
        now = time.monotonic()
        if self._heard and now - self._told_at >= TELL_SECONDS:
            self._figures.put(figure())
            self._told_at = now

    @contextmanager
    def throughout(self) -> Iterator[None]:
        """For a block that is one long call, which tells of nothing: all there is to say is that its process lives."""
        done = Event()

        def tick() -> None:
            while not done.wait(TELL_SECONDS):
                self()

        with ThreadPoolExecutor(1) as thread:
            thread.submit(tick)
            try:
                yield
            finally:
                done.set()


def leave_checkpoint(state: bytes | None, metrics: dict[str, Any]) -> None:
    """To be called by every worker at once; rank 0 brings the state, which holds for all."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if state is not None:
            (Path(folder) / STATE).write_bytes(state)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)


def last_checkpoint() -> bytes | None:
    """The state that the run's last checkpoint holds."""
    checkpoint = ray.train.get_checkpoint()
    return None if checkpoint is None else state_of(checkpoint)


def state_of(checkpoint: ray.train.Checkpoint) -> bytes:
    """The state that was given to :func:`leave_checkpoint`."""
    with checkpoint.as_directory() as folder:
        return (Path(folder) / STATE).read_bytes()


def _follow(trainer: TorchTrainer, figures: Queue, progress: Progress | None) -> Result:
    """Run the training beside this thread, which tells of its progress; in the main thread Ray Train would take an
    interruption for an orderly end.

    Raises:
        JobError: no worker told of anything for ``ray.stall_seconds``, and the time in which Ray Train itself gives up
            looking for room.
    """

    def fit_and_say_so() -> Result:
        try:
            return trainer.fit()
        finally:
            figures.put(None)

    pool = ThreadPoolExecutor(1)
    training = pool.submit(fit_and_say_so)
    pool.shutdown(wait=False)
    silence = stall_seconds() + 2 * START_SECONDS
    try:
        while (told := figures.get(timeout=silence)) is not None:
            if progress is not None and told != ALIVE:
                progress(*told)
    except Empty as stall:
        raise JobError(
            f"training made no progress for {silence:g} s (ray.stall_seconds and what a start may take): a worker "
            f"hangs, or a batch takes longer; {AGAIN}"
        ) from stall
    return training.result()


def _cause(error: TrainingFailedError) -> str:
    """In one line; where a worker says what it lacks, that rather than that the others lost it."""
    failures: list[Exception] = [error]
    if isinstance(error, WorkerGroupError):
        failures = sorted(error.worker_failures.values(), key=lambda failure: not isinstance(failure, JobError))
    elif isinstance(error, ControllerError):
        failures = [error.controller_failure]
    first = failures[0]
    return str(first) if isinstance(first, JobError) else f"{type(first).__name__}: {first}".splitlines()[0]

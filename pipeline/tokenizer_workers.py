"""Ray Train: workers that train one tokenizer together, each on vectors that it spools for itself.

They start again from the last checkpoint when one of them dies, and so does a run of the same name after the driver
died: Ray Train keeps the list of a run's checkpoints beside them.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import ray
import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import ControllerError, Result, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue
from safetensors.torch import load, save

from pipeline.errors import JobError
from pipeline.ray_session import gpus, share_of_cores
from pipeline.spool import Vectors, splits
from tokenizer.config import TokenizerConfig
from tokenizer.distributed import total
from tokenizer.embeddings import TokenizerError
from tokenizer.fitting import fit
from tokenizer.training import Training

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
MAX_FAILURES = 3  # deaths of workers that a run survives
STATE = "training.safetensors"
AGAIN = "run it again to go on from the last checkpoint"
UNREADABLE = "CheckpointManagerInitializationError"  # a kill caught Ray Train in writing its list of checkpoints

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class _Job:
    """What a worker is told."""

    config: TokenizerConfig
    vectors: Vectors
    figures: Queue
    checkpoint_seconds: float


@dataclass(frozen=True)
class _Outcome:
    """What a worker ends with: why there is no tokenizer, or, from rank 0, what was learned."""

    refused: str | None = None
    weights: bytes = b""
    device: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """A tokenizer's weights by name, and how they came about.

    ``epochs`` are those of the whole training, ``seconds`` those since its start or the checkpoint it resumed from.
    """

    weights: dict[str, torch.Tensor]
    device: str
    epochs: int
    seconds: float


def train(config: TokenizerConfig, vectors: Vectors, checkpoints: str, progress: Progress | None = None) -> Trained:
    """Train on Ray with ``config.workers`` workers, a GPU each where Ray has any.

    Args:
        config: the tokenizer.
        vectors: what to train on; the held-out part of them is left alone.
        checkpoints: folder of the lake, which every worker must reach. One that an earlier run left is gone on from.
        progress: called in this process after every epoch.

    Raises:
        TokenizerError: as :func:`tokenizer.fitting.fit`.
        JobError: Ray lacks the GPUs, or workers died again and again.
    """
    if 0 < gpus() < config.workers:
        raise JobError(f"tokenizer.workers is {config.workers}, but Ray has {gpus()} GPUs: lower it or add GPUs")
    figures = Queue(actor_options={"num_cpus": 0})
    trainer = _trainer(_Job(config, vectors, figures, CHECKPOINT_SECONDS), checkpoints)
    try:
        result = _follow(trainer, figures, progress)
    except TrainingFailedError as error:
        raise JobError(f"training failed: {_cause(error)}; {AGAIN}") from error
    except RayActorError as error:
        if UNREADABLE not in str(error):
            raise JobError(f"training failed: Ray Train's controller died; {AGAIN}") from error
        logger.warning("%s cannot be read: training begins anew", vectors.lake.path(checkpoints))
        vectors.lake.delete(checkpoints)
        return train(config, vectors, checkpoints, progress)
    finally:
        figures.shutdown()
    outcome: _Outcome = result.return_value
    if outcome.refused is not None:
        raise TokenizerError(outcome.refused)
    epochs = result.metrics["epoch"] if result.metrics else 0  # residual k-means has none
    return Trained(load(outcome.weights), outcome.device, epochs, outcome.seconds)


def _trainer(job: _Job, checkpoints: str) -> TorchTrainer:
    lake, workers = job.vectors.lake, job.config.workers
    storage, name = lake.path(checkpoints).rsplit("/", 1)
    cpus = min(1.0, ray.cluster_resources().get("CPU", 1) / workers)
    return TorchTrainer(
        _train_worker,
        train_loop_config={"job": ray.put(job)},
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
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _follow(trainer: TorchTrainer, figures: Queue, progress: Progress | None) -> Result:
    """Run the training beside this thread, which tells of its epochs; in the main thread Ray Train would take an
    interruption for an orderly end."""

    def fit_and_say_so() -> Result:
        try:
            return trainer.fit()
        finally:
            figures.put(None)

    pool = ThreadPoolExecutor(1)
    training = pool.submit(fit_and_say_so)
    pool.shutdown(wait=False)
    while (epoch := figures.get()) is not None:
        if progress is not None:
            progress(*epoch)
    return training.result()


def _train_worker(told: dict[str, Any]) -> _Outcome:
    """One worker's part, from the vectors to the end of the training, or on from the run's last checkpoint."""
    job: _Job = ray.get(told["job"])
    context, device = ray.train.get_context(), get_device()
    rank = context.get_world_rank()
    threads = share_of_cores(context.get_local_world_size())
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    vectors = job.vectors.spool()
    rows = splits(job.vectors.keys_N, watched=job.config.patience is not None)
    validation = vectors.select(rows.validation)
    clock = saved = time.perf_counter()

    def on_epoch(training: Training) -> None:
        nonlocal saved
        if rank == 0:
            job.figures.put((training.epoch, training.epochs, _figures(training)))
        late = torch.tensor(int(rank == 0 and time.perf_counter() - saved >= job.checkpoint_seconds), device=device)
        if bool(total(late)) or training.finished:
            _checkpoint(training, rank)
            saved = time.perf_counter()

    try:
        model = fit(
            vectors.select(rows.train),
            job.config,
            validation=validation if len(validation) else None,
            device=device,
            on_epoch=on_epoch,
            resume=_last_checkpoint(),
        )
    except TokenizerError as error:  # the same one in every worker; raised, it would be tried again
        return _Outcome(refused=str(error))
    if rank > 0:
        return _Outcome()
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return _Outcome(weights=save(weights), device=device.type, seconds=time.perf_counter() - clock)


def _figures(training: Training) -> dict[str, float]:
    return {name: training.means[name] for name in ("unexplained", "validation") if name in training.means}


def _checkpoint(training: Training, rank: int) -> None:
    """Every worker takes part, rank 0 brings the state, which is the same everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            (Path(folder) / STATE).write_bytes(training.state())
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"epoch": training.epoch}, checkpoint=checkpoint)


def _last_checkpoint() -> bytes | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return (Path(folder) / STATE).read_bytes()


def _cause(error: TrainingFailedError) -> str:
    """In one line; where a worker says what it lacks, that rather than that the others lost it."""
    failures: list[Exception] = [error]
    if isinstance(error, WorkerGroupError):
        failures = sorted(error.worker_failures.values(), key=lambda failure: not isinstance(failure, JobError))
    elif isinstance(error, ControllerError):
        failures = [error.controller_failure]
    first = failures[0]
    return str(first) if isinstance(first, JobError) else f"{type(first).__name__}: {first}".splitlines()[0]

"""Ray Train's workers that train one tokenizer together, each on vectors that it reads for itself."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import faiss
import ray
import ray.train
import torch
from ray.train.torch import get_device
from ray.util.queue import Queue
from safetensors.torch import load, save

from pipeline.on_ray.session import share_of_cores
from pipeline.on_ray.training import runs as training_runs
from pipeline.on_ray.training.runs import Progress, last_checkpoint, leave_checkpoint
from pipeline.on_ray.training.vector_files import Vectors, splits
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.distributed import total
from tokenizer.base.embeddings import TokenizerError
from tokenizer.training.fitting import fit
from tokenizer.training.training import Training


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
        progress: called in this process about every second and after every epoch.

    Raises:
        TokenizerError: as :func:`tokenizer.training.fitting.fit`.
        JobError: Ray lacks the GPUs, or workers died again and again.
    """
    figures = training_runs.figures_queue()
    job = _Job(config, vectors, figures, training_runs.CHECKPOINT_SECONDS)
    result = training_runs.run(
        _train_worker,
        job,
        figures,
        workers=config.workers,
        lake=vectors.lake,
        checkpoints=checkpoints,
        progress=progress,
    )
    outcome: _Outcome = result.return_value
    if outcome.refused is not None:
        raise TokenizerError(outcome.refused)
    epochs = result.metrics["epoch"] if result.metrics else 0  # residual k-means has none
    return Trained(load(outcome.weights), outcome.device, epochs, outcome.seconds)


def _train_worker(told: dict[str, Any]) -> _Outcome:
    """One worker's part, from the vectors to the end of the training, or on from the run's last checkpoint."""
    job: _Job = ray.get(told["job"])
    context, device = ray.train.get_context(), get_device()
    rank = context.get_world_rank()
    threads = share_of_cores(context.get_local_world_size())
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    vectors = job.vectors.load()
    rows = splits(job.vectors.keys_N, watched=job.config.patience is not None)
    validation = vectors.select(rows.validation)
    clock = saved = ended = time.perf_counter()
    tell = training_runs.Tell(job.figures, rank)
    faiss_alone = job.config.method == "rq_kmeans"  # no epochs, no steps

    def on_step(training: Training) -> None:
        tell(lambda: (training.done, training.epochs, {}))

    def on_epoch(training: Training) -> None:
        nonlocal saved, ended
        if rank == 0:
            job.figures.put((training.epoch, training.epochs, _figures(training, time.perf_counter() - ended)))
        ended = time.perf_counter()
        late = torch.tensor(int(rank == 0 and time.perf_counter() - saved >= job.checkpoint_seconds), device=device)
        if bool(total(late)) or training.finished:
            leave_checkpoint(training.state() if rank == 0 else None, {"epoch": training.epoch})
            saved = time.perf_counter()

    try:
        with tell.throughout() if faiss_alone else nullcontext():
            model = fit(
                vectors.select(rows.train),
                job.config,
                validation=validation if len(validation) else None,
                device=device,
                on_epoch=on_epoch,
                on_step=on_step,
                resume=last_checkpoint(),
            )
    except TokenizerError as error:  # the same one in every worker; raised, it would be tried again
        return _Outcome(refused=str(error))
    if rank > 0:
        return _Outcome()
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return _Outcome(weights=save(weights), device=device.type, seconds=time.perf_counter() - clock)


def _figures(training: Training, seconds: float) -> dict[str, float]:
    shown = {name: training.means[name] for name in ("unexplained", "validation") if name in training.means}
    rate = training.optimiser.param_groups[0]["lr"]
    return shown | {"learning_rate": rate, "items_per_second": len(training.chosen_N) / max(seconds, 1e-9)}

"""Training rankers on Ray: windows in as a Ray dataset, weights out.

Training is data-parallel (Ray Train, DistributedDataParallel; gloo on CPU). The windows stream to the workers
in one fixed order, so a run is a function of configuration, data and number of workers, whoever dies on the way.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from ray.util.queue import Queue

from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from pipeline.on_ray.session import share_of_cores
from pipeline.on_ray.training import runs as training_runs
from pipeline.on_ray.training.code_vectors import Decoded
from pipeline.on_ray.training.ranker_survey import ItemsLearned, learned_of_items, survey_of
from pipeline.on_ray.training.runs import last_checkpoint, leave_checkpoint, state_of
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.config import RankerConfig
from ranker.hmat.layers import FeedbackEmbedding
from ranker.requests import as_requests
from ranker.training import DivergedError, EpochFigures, Progress, Training
from ranker.windows import (
    MODEL_COLUMNS,
    WindowBatch,
    check_windows,
    counted_between,
    shuffled_batches,
    sorted_batches,
    without_loss,
)
from schemas.semantic_id import Layout
from tokenizer.training.checkpoint import nested, optimiser_tensors, pack, restore_optimiser, unpack

WATCHED = 0.1  # the share of the training period, its end, that early stopping looks at


@dataclass(frozen=True)
class _Job:
    """What a worker is told."""

    config: RankerConfig
    layout: Layout
    decoded: Decoded | None
    items: ray.ObjectRef  # to ItemsLearned
    feedback: tuple[float, float] | None  # mean and deviation of graded feedback
    windows: int
    figures: Queue
    checkpoint_seconds: float


def train(
    dataset: ray.data.Dataset,
    config: RankerConfig,
    layout: Layout,
    tokenizer: str,
    *,
    decoded: Decoded | None = None,
    lake: Lake,
    checkpoints: str,
    progress: training_runs.Progress | None = None,
) -> tuple[TrainedRanker, list[EpochFigures]]:
    """Train a ranker on windows of ``sequences``.

    Args:
        dataset: the training windows; rows of the test split must have been left out.
        config: the ranker; ``config.workers`` processes train it, a GPU each where Ray has any.
        layout: slots and codebook size of the windows' codes.
        tokenizer: fingerprint that every window must carry.
        decoded: if ``config.decoded``, the vectors of this tokenizer's codes.
        lake: where checkpoints are.
        checkpoints: folder of the lake, which every worker must reach. One that an earlier run left is gone on from.
        progress: called in this process about every second and after every pass.

    Returns:
        The trained ranker, the best one if ``config.patience`` is set, and the figures of every pass.

    Raises:
        WindowError: the rows do not fit.
        JobError: ``decoded`` is of another tokenizer, ``config.feedback`` is set and there is none, there is no window
            to train on or to watch, no item has ``config.item_id.min_events``, the training diverged, Ray lacks the
            GPUs, or workers died again and again.
    """
    if decoded and decoded.tokenizer != tokenizer:
        raise JobError(f"the decoded vectors are of tokenizer {decoded.tokenizer}, the windows of {tokenizer}")
    dataset = dataset.select_columns(MODEL_COLUMNS)
    fits = partial(check_windows, layout=layout, tokenizer=tokenizer, max_items=config.max_items)
    survey = survey_of(dataset, fits)
    if config.feedback and survey.feedback is None:
        raise JobError("ranker.feedback is set, but the sequences have none: set interactions.feedback, run sequences")
    datasets = _periods(dataset, survey.first, survey.last, watch=config.patience is not None)
    windows = {name: part.count() for name, part in datasets.items()}
    for name, count in windows.items():
        if count == 0:
            raise JobError(f"there is no window to {name}: the sequences table has too few rows of the train split")
    items = learned_of_items(datasets["train"], config, decoded.vectors_CV if decoded else None)
    figures = training_runs.figures_queue()
    told = config, layout, decoded, items, survey.feedback, windows["train"], figures
    result = training_runs.run(
        _train_worker,
        _Job(*told, training_runs.CHECKPOINT_SECONDS),
        figures,
        workers=config.workers,
        spare_cpus=1,
        lake=lake,
        checkpoints=checkpoints,
        datasets={name: _evenly(part, windows[name], config.workers) for name, part in datasets.items()},
        progress=progress,
    )
    if result.return_value is not None:
        raise JobError(f"ranker: {result.return_value}")
    tensors, reached = unpack(state_of(result.checkpoint))
    weights = nested(tensors, "best") or nested(tensors, "model")
    return TrainedRanker(config, layout, tokenizer, weights), Progress.of(reached).epochs


def _train_worker(told: dict[str, Any]) -> str | None:
    """One worker's part, from the first pass or the run's last checkpoint to the end; says why there is no ranker."""
    job: _Job = ray.get(told["job"])
    context, device = ray.train.get_context(), get_device()
    rank = context.get_world_rank()
    if device.type == "cpu":
        torch.set_num_threads(share_of_cores(context.get_local_world_size()))
    decoded_CV = job.decoded.vectors_CV if job.decoded else None
    items: ItemsLearned = ray.get(job.items)
    model = build(job.config, job.layout, decoded_CV, items.factors, items.hash_I)
    del items
    if job.config.feedback and job.feedback:
        cast(FeedbackEmbedding, model.feedback).standardise(*job.feedback)
    training = Training(prepare_model(model), job.config, job.layout, job.windows, device)
    _restore(training, last_checkpoint())
    tell, saved = training_runs.Tell(job.figures, rank), time.monotonic()

    def on_step(training: Training) -> None:
        nonlocal saved
        tell(lambda: _so_far(training))
        (late,) = training.sum_over_workers((rank == 0 and time.monotonic() - saved >= job.checkpoint_seconds,))
        if late:
            training.look()
            _leave(training, rank)
            saved = time.monotonic()

    watched = None if job.config.patience is None else partial(_watched, job)
    while not training.finished:
        try:
            training.run_epoch(_batches(job, rank, len(training.progress.epochs)), watched, on_step, tell)
        except DivergedError as error:  # the same one in every worker; raised, it would be tried again
            return str(error)
        if rank == 0:
            job.figures.put(_so_far(training))
    _leave(training, rank)
    return None


def _leave(training: Training, rank: int) -> None:
    state = None
    if rank == 0:
        groups = {
            "model": training.weights(),
            "best": training.best,
        } | {name: optimiser_tensors(optimiser) for name, optimiser in training.optimisers.by_name.items()}
        tensors = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        state = pack(tensors, asdict(training.progress))
    leave_checkpoint(state, {"epoch": len(training.progress.epochs), "steps": training.progress.all_steps})


def _restore(training: Training, state: bytes | None) -> None:
    if state is None:
        return
    tensors, reached = unpack(state)
    training.progress = Progress.of(reached)
    training.best = nested(tensors, "best")
    training.load_weights(nested(tensors, "model"))
    for name, optimiser in training.optimisers.by_name.items():
        restore_optimiser(optimiser, nested(tensors, name))


def _so_far(training: Training) -> tuple[float, int, dict[str, float]]:
    progress, last = training.progress, training.progress.epochs[-1:]
    done = len(progress.epochs) + progress.windows / training.windows
    if progress.steps:
        return done, training.config.epochs, {"loss": training.loss}
    (epoch,) = last
    shown = {
        "loss": epoch.loss,
        "seconds": epoch.seconds,
        "learning_rate": training.learning_rate,
        "impressions_per_second": epoch.impressions / max(epoch.seconds, 1e-9),
    }
    return done, training.config.epochs, shown | ({"validation": epoch.validation} if epoch.validation else {})


def _batches(job: _Job, rank: int, epoch: int) -> Iterator[WindowBatch]:
    config = job.config
    rng = np.random.default_rng([config.seed, epoch, rank])
    budget = max(1, config.batch_items // config.workers)
    batches = shuffled_batches(_blocks("train", config), job.layout, budget, rng)
    if not config.request_share:
        return batches
    drawn = np.random.default_rng([config.seed, epoch, rank, 1])  # its own, so that the batches are those without
    return (as_requests(batch, config.request_share, drawn) for batch in batches)


def _watched(job: _Job) -> Iterator[WindowBatch]:
    return sorted_batches(_blocks("watch", job.config), job.layout, job.config.batch_items)


def _blocks(name: str, config: RankerConfig) -> Iterator[pa.Table]:
    shard = ray.train.get_dataset_shard(name)
    blocks: Iterator[pa.Table] = shard.iter_batches(
        batch_size=config.shuffle_windows, batch_format="pyarrow", prefetch_batches=1
    )
    return blocks


def _periods(dataset: ray.data.Dataset, first: int, last: int, *, watch: bool) -> dict[str, ray.data.Dataset]:
    """The windows with what is to be trained on in their loss masks and, to ``watch``, those with the end of it."""
    if not watch:
        return {"train": dataset}
    border = int(last - WATCHED * (last - first))
    spans = {"train": {"before": border}, "watch": {"since": border}}
    return {
        name: dataset.map_batches(counted_between, batch_format="pyarrow", fn_kwargs=span)
        for name, span in spans.items()
    }


def _evenly(dataset: ray.data.Dataset, windows: int, workers: int) -> ray.data.Dataset:
    """``dataset`` in a multiple of ``workers`` rows: Ray splits evenly and would drop the rest.

    The rows added repeat the first ones, again and again if need be, with nothing in their loss mask.
    """
    missing = -windows % workers
    again = (dataset.limit(min(windows, missing - done)) for done in range(0, missing, windows))
    blank = [some.map_batches(without_loss, batch_format="pyarrow") for some in again]
    return dataset.union(*blank) if blank else dataset

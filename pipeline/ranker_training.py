"""Training rankers on Ray: windows in as a Ray dataset, weights out.

Training is data-parallel (Ray Train, DistributedDataParallel; gloo on CPU). The windows stream to the workers
in one fixed order, so a run is a function of configuration, data and number of workers.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from pyarrow import fs
from ray.data import ExecutionOptions
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.util.queue import Queue
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.ray_session import share_of_cores
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.config import RankerConfig
from ranker.data import (
    MODEL_COLUMNS,
    WindowBatch,
    check_windows,
    shuffled_batches,
    window_lengths,
)
from ranker.training import EpochFigures, Progress, optimiser_for, train_epoch
from schemas.semantic_id import Layout

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class _Job:
    """What a worker is told."""

    config: RankerConfig
    layout: Layout
    tokenizer: str
    decoded_CV: torch.Tensor | None
    total_windows: int
    figures: Queue


def train(
    dataset: ray.data.Dataset,
    config: RankerConfig,
    layout: Layout,
    tokenizer: str,
    *,
    decoded_CV: torch.Tensor | None = None,
    use_gpu: bool,
    storage: str | Path,
    filesystem: fs.FileSystem | None = None,
    on_epoch: Callable[[EpochFigures], None] | None = None,
) -> tuple[TrainedRanker, list[EpochFigures]]:
    """Train a ranker on windows of ``sequences``.

    Args:
        dataset: the training windows; rows of the test split must have been left out.
        config: the ranker; ``config.workers`` processes train it.
        layout: slots and codebook size of the windows' codes.
        tokenizer: fingerprint that every window must carry.
        decoded_CV: if ``config.decoded``, the vectors of the codes, see :func:`ranker.architectures.build`.
        use_gpu: one GPU a worker.
        storage: folder where Ray Train keeps the run's checkpoint, which every worker can write to.
        filesystem: that ``storage`` is a path of; default: this machine's, or the one that its URI names.
        on_epoch: called in this process after every pass.

    Returns:
        The trained ranker and the figures of every pass.

    Raises:
        ValueError: there is no window to train on.
        ray.train.TrainingFailedError: a worker failed; its cause is a ``WindowError`` if the rows do not fit.
    """
    dataset = dataset.select_columns(MODEL_COLUMNS)
    windows = dataset.count()
    if windows == 0:
        raise ValueError("there is no window to train on: the sequences table has no row of the train split")
    history: list[EpochFigures] = []
    figures = Queue(actor_options={"num_cpus": 0})
    listener = threading.Thread(target=_listen, args=(figures, history, on_epoch), daemon=True)
    listener.start()
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"job": _Job(config, layout, tokenizer, decoded_CV, windows * config.epochs, figures)},
        datasets={"train": _evenly(dataset, windows, config.workers)},
        dataset_config=ray.train.DataConfig(execution_options=ExecutionOptions(preserve_order=True)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": _cpus_a_worker(config.workers)} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(storage),
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    finally:
        figures.put(None)
        listener.join()
        figures.shutdown()
    with result.checkpoint.as_directory() as folder:
        state = load_file(Path(folder) / WEIGHTS)
    return TrainedRanker(config, layout, tokenizer, state), history


def _train_worker(told: dict[str, Any]) -> None:
    """One worker's run: every pass, then rank 0 leaves the weights in the run's checkpoint."""
    job: _Job = told["job"]
    config, context = job.config, ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    if device.type == "cpu":
        torch.set_num_threads(share_of_cores(context.get_local_world_size()))
    torch.manual_seed(config.seed + 1 + rank)  # dropout differs between workers, the weights do not
    model = prepare_model(build(config, job.layout, job.decoded_CV))
    optimiser, progress = optimiser_for(model, config), Progress()
    for epoch in range(config.epochs):
        figures = train_epoch(
            model,
            optimiser,
            _batches(job, rank, epoch),
            progress,
            epoch=epoch,
            total_windows=job.total_windows,
            config=config,
            layout=job.layout,
            device=device,
        )
        if rank == 0:
            job.figures.put(figures)
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            save_file(_weights(model), Path(folder) / WEIGHTS)
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
        ray.train.report(asdict(figures), checkpoint=checkpoint)


def _batches(job: _Job, rank: int, epoch: int) -> Iterator[WindowBatch]:
    config = job.config
    blocks = ray.train.get_dataset_shard("train").iter_batches(
        batch_size=config.shuffle_windows, batch_format="pyarrow", prefetch_batches=1
    )
    rng = np.random.default_rng([config.seed, epoch, rank])
    checked = (_checked(block, job) for block in blocks)
    return shuffled_batches(checked, job.layout, max(1, config.batch_items // config.workers), rng)


def _checked(windows: pa.Table, job: _Job) -> pa.Table:
    check_windows(windows, job.layout, job.tokenizer, job.config.max_items)
    return windows


def _evenly(dataset: ray.data.Dataset, windows: int, workers: int) -> ray.data.Dataset:
    """``dataset`` in a multiple of ``workers`` rows: Ray splits evenly and would drop the rest.

    The rows added repeat the first ones with nothing in their loss mask.
    """
    missing = -windows % workers
    if missing == 0:
        return dataset
    return dataset.union(dataset.limit(missing).map_batches(_uncounted, batch_format="pyarrow"))


def _uncounted(windows: pa.Table) -> pa.Table:
    column = windows.schema.get_field_index("loss_mask")
    masks = [[False] * length for length in window_lengths(windows)]
    return windows.set_column(column, "loss_mask", pa.array(masks, windows.schema.field(column).type))


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return {name: tensor.detach().cpu() for name, tensor in inner.state_dict().items()}


def _cpus_a_worker(workers: int) -> float:
    """What a worker reserves of Ray's CPUs: one, but less where that would leave none to the ingest."""
    free = ray.cluster_resources().get("CPU", 1) - 1
    return min(1.0, max(0.0, free / workers))


def _listen(figures: Queue, history: list[EpochFigures], on_epoch: Callable[[EpochFigures], None] | None) -> None:
    while (epoch := figures.get()) is not None:
        history.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)

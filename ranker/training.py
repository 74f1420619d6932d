"""Training a ranker, one process's part: the schedule, the step, the pass over the data.

Works alone or under DistributedDataParallel. Every step counts the impressions of all workers, so that a step's
gradient is that of the mean loss over all of them however they are spread; a worker that has run out of windows
steps with a blank batch until all have.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.config import RankerConfig
from ranker.data import WindowBatch, blank_batch
from schemas.semantic_id import Layout


@dataclass
class Progress:
    """How far a run has come, over all workers."""

    step: int = 0
    windows: int = 0


@dataclass(frozen=True)
class EpochFigures:
    """One pass: mean binary cross-entropy in training, its impressions and windows, seconds."""

    epoch: int
    loss: float
    impressions: int
    windows: int
    steps: int
    seconds: float


def optimiser_for(model: nn.Module, config: RankerConfig) -> torch.optim.Optimizer:
    """AdamW; biases, norms and single vectors do not decay."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate(progress: Progress, total_windows: int, config: RankerConfig) -> float:
    """Linear warm-up by steps, cosine decay to zero by the share of all windows seen."""
    warm = min(1.0, (progress.step + 1) / (config.warmup_steps + 1))
    done = min(1.0, progress.windows / total_windows)
    return config.learning_rate * warm * (1 + math.cos(math.pi * done)) / 2


def loss_sum(logits_BN: Tensor, batch: WindowBatch) -> Tensor:
    """Summed binary cross-entropy over the positions of the loss mask."""
    mask = batch.loss_mask
    return F.binary_cross_entropy_with_logits(logits_BN[mask].float(), batch.labels[mask].float(), reduction="sum")


def train_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, batch: WindowBatch, impressions: int, config: RankerConfig
) -> float:
    """One update on the mean loss over ``impressions`` of all workers; returns this worker's summed loss."""
    loss = loss_sum(model(batch.tokens, batch.items, batch.labels), batch)
    optimiser.zero_grad(set_to_none=True)
    (loss * _world_size() / max(1, impressions)).backward()  # DDP averages over the workers
    nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimiser.step()
    return loss.item()


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[WindowBatch],
    progress: Progress,
    *,
    epoch: int,
    total_windows: int,
    config: RankerConfig,
    layout: Layout,
    device: torch.device,
) -> EpochFigures:
    """One pass over every worker's batches; moves ``progress`` on. ``total_windows`` counts all passes."""
    began, first_step, seen, windows, loss = time.monotonic(), progress.step, 0, 0, 0.0
    model.train()
    while True:
        batch = next(batches, None)
        own = (0, 0) if batch is None else (batch.windows, batch.impressions)
        step_windows, step_impressions = (int(x) for x in _sum_over_workers(own, device))
        if step_windows == 0:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, total_windows, config)
        batch = (batch or blank_batch(layout)).to(device)
        loss += train_step(model, optimiser, batch, step_impressions, config)
        progress.step += 1
        progress.windows += step_windows
        seen, windows = seen + step_impressions, windows + step_windows
    (loss,) = _sum_over_workers((loss,), device)
    steps, seconds = progress.step - first_step, time.monotonic() - began
    return EpochFigures(epoch, loss / max(1, seen), seen, windows, steps, seconds)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _sum_over_workers(values: tuple[float, ...], device: torch.device) -> list[float]:
    if _world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()

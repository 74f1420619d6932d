"""Training a ranker, one process's part: the schedule, the step, the pass over the data.

The thread that steps does nothing else and waits for nothing: batches are made by another one, and what they cost
stays on the device until :data:`LOOK` of them are looked at together.

Works alone or under DistributedDataParallel. Every step counts the impressions of all workers, so that a step's
gradient is that of the mean loss over all of them however they are spread; a worker that has run out of windows
steps with a blank batch until all have. Every step has a random state of its own, so a training that goes on from what
:class:`Training` was after any step ends in the same bits.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.ahead import ahead
from ranker.config import RankerConfig
from ranker.optimisers import Optimisers
from ranker.windows import WindowBatch, blank_batch
from schemas.semantic_id import Layout

WORSE_THAN_GUESSING = 1.5 * math.log(2)  # mean loss; even odds for every impression would give log 2
LOOK = 32  # steps after which their losses are looked at: a training that diverges goes on no longer than that


class DivergedError(ValueError):
    """A training whose loss is no number any more, or is worse over a whole pass than guessing."""


@dataclass(frozen=True)
class EpochFigures:
    """One pass: mean binary cross-entropy in training and on what is watched, impressions, windows, steps, seconds."""

    epoch: int
    loss: float
    validation: float | None
    impressions: int
    windows: int
    steps: int
    seconds: float


@dataclass
class Progress:
    """How far a training has come, over all workers, the same in each: whole passes, then the one under way."""

    epochs: list[EpochFigures] = field(default_factory=list)
    stale: int = 0
    steps: int = 0
    windows: int = 0
    impressions: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    @property
    def all_steps(self) -> int:
        """Steps of all passes."""
        return self.steps + sum(epoch.steps for epoch in self.epochs)

    @property
    def all_windows(self) -> int:
        """Windows of all passes."""
        return self.windows + sum(epoch.windows for epoch in self.epochs)

    def end_epoch(self, validation: float | None) -> None:
        """Close the pass under way."""
        best = min((e.validation for e in self.epochs if e.validation is not None), default=math.inf)
        self.stale = 0 if validation is None or validation < best else self.stale + 1
        loss = self.loss / max(1, self.impressions)
        pass_ = (loss, validation, self.impressions, self.windows, self.steps, self.seconds)
        self.epochs.append(EpochFigures(len(self.epochs), *pass_))
        self.steps = self.windows = self.impressions = 0
        self.loss = self.seconds = 0.0

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Progress":
        """The inverse of :func:`dataclasses.asdict`."""
        return cls(**values | {"epochs": [EpochFigures(**epoch) for epoch in values["epochs"]]})


def learning_rate(steps: int, windows: int, total_windows: int, config: RankerConfig) -> float:
    """Linear warm-up by steps, cosine decay to zero by the share of all windows seen."""
    warm = min(1.0, (steps + 1) / (config.warmup_steps + 1))
    done = min(1.0, windows / total_windows)
    return config.learning_rate * warm * (1 + math.cos(math.pi * done)) / 2


def loss_sum(logits_BN: Tensor, batch: WindowBatch) -> Tensor:
    """Summed binary cross-entropy over the positions of the loss mask: a scalar in nats, float32."""
    logits_P, labels_P = (x_BN.flatten()[batch.counted].float() for x_BN in (logits_BN, batch.labels))
    return F.binary_cross_entropy_with_logits(logits_P, labels_P, reduction="sum")


class Training:
    """A training under way: the model, its optimiser, the best weights so far, and how far it has come.

    Args:
        model: on ``device``; alone or wrapped by DistributedDataParallel.
        config: of the ranker.
        layout: of the windows' codes.
        windows: of one pass, over all workers.
        device: where the model is.
    """

    def __init__(
        self, model: nn.Module, config: RankerConfig, layout: Layout, windows: int, device: torch.device | None = None
    ) -> None:
        self.model, self.config, self.layout, self.windows = model, config, layout, windows
        self.device = device or torch.device("cpu")
        self.optimisers = Optimisers(model, config)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._unseen: list[tuple[Tensor, int]] = []  # losses, summed over the impressions of all workers beside them
        on_gpus = self.device.type == "cuda" and dist.is_initialized()
        self._hosts = dist.new_group(backend="gloo") if on_gpus else None  # to agree without waiting for the GPUs

    @property
    def finished(self) -> bool:
        """Whether all passes are done, or ``patience`` of them brought nothing."""
        progress = self.progress
        return len(progress.epochs) >= self.config.epochs or progress.stale >= (self.config.patience or math.inf)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        progress, config = self.progress, self.config
        return learning_rate(progress.all_steps, progress.all_windows, self.windows * config.epochs, config)

    @property
    def loss(self) -> float:
        """Mean loss of the pass under way, as far as it was looked at."""
        unseen = sum(impressions for _, impressions in self._unseen)
        return self.progress.loss / max(1, self.progress.impressions - unseen)

    def weights(self) -> dict[str, Tensor]:
        """Those of the model as it is, by name, not copied."""
        return dict(self._alone.state_dict())

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put them into the model."""
        self._alone.load_state_dict(weights)

    @property
    def _alone(self) -> nn.Module:
        """The model without what wraps it."""
        return self.model.module if isinstance(self.model, nn.parallel.DistributedDataParallel) else self.model

    def run_epoch(
        self,
        batches: Iterator[WindowBatch],
        watched: Callable[[], Iterator[WindowBatch]] | None = None,
        on_step: Callable[["Training"], None] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> EpochFigures:
        """The rest of a pass over this worker's batches, of which those that were trained on already are skipped.

        Args:
            batches: the whole pass's.
            watched: batches that the loss of the model after the pass is taken over, if there are any.
            on_step: called after every step, in all workers alike.
            alive: called for every batch that is skipped or watched: of those no step tells.

        Raises:
            DivergedError: the loss, in training or on what is watched, is no number any more, or the pass was worse
                than guessing.
        """
        self.model.train()
        for _ in islice(batches, self.progress.steps):
            alive()
        batches = ahead(map(self._ready, batches))
        began, before = time.monotonic(), self.progress.seconds
        while True:
            batch = next(batches, None)
            own = (0, 0) if batch is None else (batch.windows, batch.impressions)
            windows, impressions = (int(x) for x in self.sum_over_workers(own))
            if windows == 0:
                break
            self._step((batch or blank_batch(self.layout)).to(self.device), windows, impressions)
            if len(self._unseen) == LOOK:
                self.look()
            self.progress.seconds = before + time.monotonic() - began
            if on_step is not None:
                on_step(self)
        self.look()
        mean = self.progress.loss / max(1, self.progress.impressions)
        if mean > WORSE_THAN_GUESSING:
            raise self._diverged(mean, self.progress.all_steps)
        validation = None if watched is None else self._validate(watched(), alive)
        if validation is not None and not math.isfinite(validation):  # the last step may have broken the weights
            raise self._diverged(validation, self.progress.all_steps)
        self.progress.end_epoch(validation)
        if validation is not None and self.progress.stale == 0:
            self.best = {name: tensor.clone() for name, tensor in self.weights().items()}
        return self.progress.epochs[-1]

    def _step(self, batch: WindowBatch, windows: int, impressions: int) -> None:
        """One update on the mean loss over the ``impressions`` of all workers."""
        progress, config = self.progress, self.config
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        torch.manual_seed(int(np.random.SeedSequence([config.seed, rank, progress.all_steps]).generate_state(1)[0]))
        with self._autocast():
            logits_BN = self.model(*batch.inputs, batch.fold)
        loss = loss_sum(logits_BN, batch)
        self.optimisers.zero_grad()
        (loss * size / max(1, impressions)).backward()  # DDP averages over the workers
        self.optimisers.step(self.learning_rate)
        self._unseen.append((loss.detach(), impressions))
        progress.steps += 1
        progress.windows += windows
        progress.impressions += impressions

    def look(self) -> None:
        """Add the losses of the latest steps to the progress; to be called by all workers at once.

        Raises:
            DivergedError: one of them is no number.
        """
        losses, self._unseen = [loss for loss, _ in self._unseen], []
        first = self.progress.all_steps - len(losses)
        for step, summed in enumerate(self.sum_over_workers(_numbers(losses)), first):
            if not math.isfinite(summed):
                raise self._diverged(summed, step)
            self.progress.loss += summed

    def sum_over_workers(self, values: Sequence[float]) -> list[float]:
        """Each value's sum over all workers; what was given where there is one."""
        if not values or not dist.is_initialized():
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._hosts)
        return total.tolist()

    def _ready(self, batch: WindowBatch) -> WindowBatch:
        return batch.pinned() if self.device.type == "cuda" else batch

    def _diverged(self, loss: float, step: int) -> DivergedError:
        return DivergedError(
            f"the training diverged, its loss is {loss:.3g} at step {step}: lower "
            f"ranker.learning_rate ({self.config.learning_rate}) or ranker.max_gradient_norm "
            f"({self.config.max_gradient_norm})"
        )

    @torch.no_grad()
    def _validate(self, batches: Iterator[WindowBatch], alive: Callable[[], None]) -> float:
        self.model.eval()
        losses, impressions = list[Tensor](), 0
        for batch in (batch.to(self.device) for batch in ahead(map(self._ready, batches))):
            with self._autocast():
                logits_BN = self._alone(*batch.inputs)
            losses.append(loss_sum(logits_BN, batch))
            impressions += batch.impressions
            alive()
        loss, counted = self.sum_over_workers((sum(_numbers(losses)), impressions))
        return loss / max(1, counted)

    def _autocast(self) -> torch.autocast:
        device, wanted = self.device.type, self.config.precision
        if wanted == "auto":
            wanted = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        return torch.autocast(device, torch.bfloat16, enabled=wanted == "bfloat16")


def _numbers(losses: list[Tensor]) -> list[float]:
    """All at once, since this waits until they are there."""
    numbers: list[float] = torch.stack(losses).tolist() if losses else []
    return numbers

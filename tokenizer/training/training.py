"""Training of a tokenizer: align first, then initialise the codebooks, then train all of it together.

N training items, B items of a batch (of all workers together).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tokenizer.base.distributed import agree, average_gradients, rank_and_size, total
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError, sample
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.baselines.rq_vae import RQVAE, RQVAEObjective
from tokenizer.dst.model import DST
from tokenizer.dst.objective import DSTObjective
from tokenizer.quantisation.codebooks import CodebookLearner
from tokenizer.training.checkpoint import nested, optimiser_tensors, pack, restore_optimiser, unpack

GRADIENT_NORM = 1.0
VCLUB_LEARNING_RATE = 1e-3
KMEANS_ITEMS_PER_CODE = 256
SETTLED_ITEMS = 200_000
VALIDATION_ITEMS = 5_000
IDENTITY_ITEMS = 1_000
LEARNING_RATE_RISE = 0.1  # share of the training until the learning rate is at its peak
WORSE_THAN_NOTHING = 1.5  # unexplained variance; the mean item alone would leave 1

OnProgress = Callable[["Training"], None]


class Training:
    """A training under way: the model with all that teaches it, and how far it has come.

    ``epoch`` counts finished epochs of ``epochs``, ``done`` the part of the one under way, too; ``means`` holds the
    last one's mean of each loss term, and ``validation`` (unexplained variance of held-out items) where they are
    watched. Only a state of the same ``identity`` can be gone on from.
    """

    def __init__(
        self, model: DST | RQVAE, embeddings: Embeddings, chosen_N: Tensor, validation: Embeddings | None
    ) -> None:
        config = model.config
        self.model, self.config, self.embeddings, self.chosen_N = model, config, embeddings, chosen_N
        self.held_out = model.readable(_watched(validation)) if validation and config.patience else None
        for m in model.known():
            x_NE = self._some(SETTLED_ITEMS, m).vectors(m)
            model.standardiser(m).learn(x_NE)
            if isinstance(model, DST) and config.linear_start:
                model.branch(m).start_from_components(model.standardiser(m)(x_NE))
        self.objective, self.learners = _teaching(model)
        agree([*model.state_dict().values(), *self.objective.state_dict().values()])
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        bounds = list(self.objective.parameters())
        self.bound_optimiser = torch.optim.Adam(bounds, lr=VCLUB_LEARNING_RATE, fused=True) if bounds else None
        self.batches = math.ceil(len(chosen_N) / config.batch_size)
        self.epochs = max(config.epochs, math.ceil(config.min_steps / self.batches))
        self.warmup = min(max(1, round(config.warmup * self.epochs)), self.epochs - 1)
        self.epoch, self.stale, self.best = 0, 0, math.inf
        self.done = 0.0
        self.best_model: dict[str, Tensor] = {}
        self.means: dict[str, float] = {}
        self.identity = self._identity()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or ``patience`` epochs brought nothing."""
        return self.epoch >= self.epochs or self.stale >= (self.config.patience or math.inf)

    def run_epoch(self, on_step: OnProgress | None = None) -> None:
        """One pass over the items; ``on_step`` is called after each batch.

        Raises:
            TokenizerError: the training diverged.
        """
        rank, size = rank_and_size()
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.epoch, rank]).generate_state(1)[0]))
        if self.epoch == self.warmup:
            self._with_items(self.objective.initialise, KMEANS_ITEMS_PER_CODE * self.config.codebook_size)
        self.model.train()
        ramp = min(1.0, max(0.0, (self.epoch - self.warmup) / max(1, self.warmup)))
        sums: dict[str, Tensor] = {}
        for number, index_B in enumerate(self._order()):
            batch = self.embeddings.select(index_B[rank::size]).to(self.model.device).normalised()
            for name, value in self._step(batch, ramp, self.epoch * self.batches + number).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            self.done = self.epoch + (number + 1) / self.batches
            if on_step is not None:
                on_step(self)
        mean = total(torch.stack(list(sums.values()))) / (self.batches * size)
        self.means = dict(zip(sums, mean.tolist(), strict=True))
        self._refuse_divergence()
        self.epoch += 1
        self._watch()

    def state(self) -> bytes:
        """All that the rest of the training depends on, as a safetensors file."""
        progress = {"epoch": self.epoch, "stale": self.stale, "best": self.best, "identity": self.identity}
        return pack(self._tensors(), progress)

    def restore(self, state: bytes) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            TokenizerError: it is broken, or of a training with other settings or other items.
        """
        tensors, progress = unpack(state)
        if progress.get("identity") != self.identity:
            raise TokenizerError(
                f"the checkpoint is of another training ({progress.get('identity')}, this one is {self.identity}); "
                "remove it to begin anew"
            )
        self.epoch, self.stale, self.best = progress["epoch"], progress["stale"], progress["best"]
        self.best_model = nested(tensors, "best")
        self.model.load_state_dict(nested(tensors, "model"))
        self.objective.load_state_dict(nested(tensors, "objective"))
        for name, learner in self.learners.items():
            learner.shares_LK.copy_(tensors[f"learner/{name}/shares"])
            learner.sums_LKD.copy_(tensors[f"learner/{name}/sums"])
        for name, optimiser in self._optimisers().items():
            restore_optimiser(optimiser, nested(tensors, name))

    def _tensors(self) -> dict[str, Tensor]:
        named = {"model": self.model.state_dict(), "objective": self.objective.state_dict(), "best": self.best_model}
        for name, optimiser in self._optimisers().items():
            named[name] = optimiser_tensors(optimiser)
        for name, learner in self.learners.items():
            named[f"learner/{name}"] = {"shares": learner.shares_LK, "sums": learner.sums_LKD}
        return {f"{group}/{name}": tensor for group, tensors in named.items() for name, tensor in tensors.items()}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        found = {"optimiser": self.optimiser, "bound_optimiser": self.bound_optimiser}
        return {name: optimiser for name, optimiser in found.items() if optimiser is not None}

    def _identity(self) -> str:
        """Names the settings, what is trained and, by a sample of their embeddings, the items."""
        parts = {name: list(tensor.shape) for name, tensor in self._tensors().items()}
        digest = hashlib.sha256((self.config.model_dump_json() + json.dumps(parts)).encode())
        some = self.embeddings.select(self.chosen_N[sample(len(self.chosen_N), IDENTITY_ITEMS)]).to("cpu")
        for m in MODALITIES:
            digest.update(some.vectors(m).masked_fill(~some.present(m)[:, None], 0.0).numpy().tobytes())
        return f"{digest.hexdigest()[:8]} on {len(self.embeddings)} items"

    def result(self) -> Tokenizer:
        """The finished tokenizer in eval mode: the best one where held-out items were watched."""
        if self.best_model:
            self.model.load_state_dict(self.best_model)
        self._with_items(self.objective.settle, SETTLED_ITEMS)
        return self.model.eval()

    def _step(self, batch: Embeddings, ramp: float, step: int) -> dict[str, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * _rate(step, self.epochs * self.batches)
        with self._autocast():
            outcome = self.objective(self.model, batch, ramp)
        self.optimiser.zero_grad(set_to_none=True)
        if outcome.loss.requires_grad:  # not where a worker's share of a small batch is empty
            outcome.loss.backward()
        average_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimiser.step()
        if self.bound_optimiser is not None:
            self.bound_optimiser.zero_grad(set_to_none=True)
            mismatch = self.objective.mismatch(outcome)
            if mismatch is not None:
                mismatch.backward()
            average_gradients(self.objective.parameters())
            self.bound_optimiser.step()
        if self.epoch >= self.warmup:
            for name, learner in self.learners.items():
                learner.update(outcome.quantised[name])
        return {name: term.detach() for name, term in outcome.terms.items()} | {"unexplained": outcome.unexplained}

    def _order(self) -> Iterator[Tensor]:
        """All items in a new order, the same for every worker, in batches of nearly equal size."""
        seed = int(np.random.SeedSequence([self.config.seed, self.epoch]).generate_state(1)[0])
        order_N = torch.randperm(len(self.chosen_N), generator=torch.Generator().manual_seed(seed))
        yield from self.chosen_N[order_N].tensor_split(self.batches)

    def _with_items(self, work: Callable[..., None], count: int) -> None:
        """Let the objective look at many items at once; worker 0's outcome holds for all."""
        self.model.eval()
        work(self.model, self.learners, lambda modality: self._some(count, modality).to(self.model.device))
        agree(self.model.state_dict().values())
        agree(t for learner in self.learners.values() for t in (learner.shares_LK, learner.sums_LKD))

    def _some(self, count: int, modality: str | None) -> Embeddings:
        """``count`` items, or all that there are; of those with the modality, since a sample of all may miss it."""
        index_N = self.chosen_N
        if modality is not None:
            index_N = index_N[self.embeddings.present(modality)[index_N]]
        return self.embeddings.select(index_N[sample(len(index_N), count)]).to("cpu").normalised()

    def _autocast(self) -> torch.autocast:
        device, wanted = self.model.device.type, self.config.precision
        if wanted == "auto":
            wanted = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        return torch.autocast(device, torch.bfloat16, enabled=wanted == "bfloat16")

    @torch.no_grad()
    def _watch(self) -> None:
        if not self.held_out or self.epoch <= self.warmup:
            return
        self.model.eval()
        items = self.held_out.to(self.model.device)
        rebuilt = self.model.restore(self.model.assign(items)[0])
        errors = [
            ((x_ND - items.vectors(m)) / self.model.standardiser(m).spread)[items.present(m)].square().mean()
            for m, x_ND in zip(MODALITIES, rebuilt, strict=True)
            if bool(items.present(m).any())
        ]
        shared_loss = torch.stack(errors).mean()
        agree([shared_loss])  # unlike hardware must not stop at unlike epochs
        loss = float(shared_loss)
        self.means["validation"] = loss
        self.stale = 0 if loss < self.best else self.stale + 1
        if loss < self.best:
            self.best = loss
            self.best_model = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _refuse_divergence(self) -> None:
        config, epoch = self.config, self.epoch + 1
        advice = (
            f"lower learning_rate (now {config.learning_rate:g}) "
            f"or information_weight (now {config.information_weight:g})"
        )
        broken = [name for name, value in self.means.items() if not math.isfinite(value)]
        if broken:
            raise TokenizerError(f"training diverged in epoch {epoch}: loss term {broken[0]} is not finite; {advice}")
        if self.means["unexplained"] > WORSE_THAN_NOTHING:
            raise TokenizerError(
                f"training diverged in epoch {epoch}: decoding leaves {self.means['unexplained']:.2f} of the variance, "
                f"worse than no codes at all; {advice}"
            )


def _teaching(model: DST | RQVAE) -> tuple[DSTObjective | RQVAEObjective, dict[str, CodebookLearner]]:
    if isinstance(model, DST):
        objective = DSTObjective(model).to(model.device)
        return objective, objective.learners(model)
    baseline = RQVAEObjective(model).to(model.device)
    return baseline, baseline.learners(model)


def _rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(LEARNING_RATE_RISE * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _watched(items: Embeddings) -> Embeddings:
    return items.select(sample(len(items), VALIDATION_ITEMS)).to("cpu").normalised()

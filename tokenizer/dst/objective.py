"""The DST's training objective: every loss of it, weighted, for one batch.

Three departures from the paper. It withholds a modality from two thirds of the batch; here every item with both is seen
in three views, whole, text alone and image alone, which costs little (the networks run once) and draws no lots.
Decoders do not shape the shared codes, since that would fill their spare levels with what one modality alone knows:
cross-modal prediction does, and the share of own content that ``self_weight`` asks for. And a shared code that one
modality chose moves towards the *other* modality's vector: what a single modality knows averages out of it.

B items, P of them with both modalities, E embedding width, D width of the code space.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from tokenizer.base.embeddings import MODALITIES, Embeddings
from tokenizer.dst.alignment import agreement_loss, contrastive_loss, geometry_loss
from tokenizer.dst.information import VCLUB, cross_covariance
from tokenizer.dst.model import DST
from tokenizer.quantisation.codebooks import CodebookLearner
from tokenizer.quantisation.quantiser import Quantised

PAIRS = (("shared", "text"), ("shared", "image"), ("text", "image"))
TERMS = (
    "align",
    "agreement",
    "geometry",
    "rebuild",
    "cross",
    "self",
    "commitment",
    "information",
    "decorrelation",
)
Drawn = Callable[[str | None], Embeddings]  # many normalised items: of all, or of those with a modality
EXPECTED_DECAY = 0.98  # the expected features are means over many more items than fit a batch


@dataclass(frozen=True)
class Outcome:
    """A batch's weighted loss terms and what each quantiser is to learn from, both by name, the unexplained variance of
    a modality (mean over those seen), and the (detached) pairs of parts for vCLUB."""

    terms: dict[str, Tensor]
    quantised: dict[str, Quantised]
    unexplained: Tensor
    pairs: dict[tuple[str, str], tuple[Tensor, Tensor]]

    @property
    def loss(self) -> Tensor:
        """The sum of all terms, a scalar."""
        return torch.stack(list(self.terms.values())).sum()


class DSTObjective(nn.Module):
    """Losses of a batch; owns the vCLUB networks, which are no part of the finished tokenizer."""

    def __init__(self, model: DST) -> None:
        super().__init__()
        self.config = model.config
        self.bounds = nn.ModuleDict({"_".join(pair): VCLUB(model.config.dim, model.config.dim) for pair in PAIRS})

    def learners(self, model: DST) -> dict[str, CodebookLearner]:
        """What teaches each of the model's codebooks, by name."""
        config = self.config
        learner = partial(CodebookLearner, decay=config.ema_decay, revive_below=config.revive_below, seed=config.seed)
        found = {"shared": learner(model.shared)}
        for m in model.known():
            branch = model.branch(m)
            found[m] = learner(branch.quantiser)
            found[f"expected_{m}"] = CodebookLearner(branch.expected, decay=EXPECTED_DECAY, revive_below=0, seed=0)
        return found

    def forward(self, model: DST, batch: Embeddings, ramp: float) -> Outcome:
        """Losses of normalised embeddings (B, E); ``ramp`` in 0 to 1 warms the information penalties up."""
        config, both_B = self.config, batch.has_both_N
        x = {m: model.branch(m).standardise(batch.vectors(m)) for m in MODALITIES}
        noisy = {m: x[m] + config.input_noise * torch.randn_like(x[m]) for m in MODALITIES}
        z = {m: model.branch(m).align(noisy[m]) for m in MODALITIES}
        whole_BD = model.merge(z["text"], z["image"], batch.has_text_N, batch.has_image_N)
        views = [whole_BD, *self.alone(whole_BD, z, both_B)]
        shared = model.shared(torch.cat(views))
        q_BD, q_text_PD, q_image_PD = shared.vectors_BD.split([len(view) for view in views])
        quantised = {"shared": model.shared.follow(self.teachers(*views).detach(), shared.codes_BL)}

        weights = self._weights(ramp, paired=bool(both_B.any()))
        losses: dict[str, list[Tensor]] = {name: [] for name in TERMS}
        losses["commitment"].append(shared.commitment)
        if int(both_B.sum()) > 1:
            pair = z["text"][both_B], z["image"][both_B]
            losses["align"].append(contrastive_loss(*pair, temperature=config.temperature))
            losses["agreement"].append(agreement_loss(*pair))
        parts: dict[str, Tensor] = {}
        for m in model.known():
            branch, has_B = model.branch(m), batch.present(m)
            h_BD, codes_BL = branch.features(noisy[m][has_B]), shared.codes_BL[: len(batch)][has_B]
            quantised[m] = branch.quantiser(branch.left_over(h_BD, codes_BL))
            quantised[f"expected_{m}"] = branch.expected.follow(h_BD.detach(), codes_BL[:, :1])
            if not bool(has_B.any()):
                continue
            parts[m] = quantised[m].vectors_BD
            losses["commitment"].append(quantised[m].commitment)
            losses["geometry"].append(geometry_loss(z[m][has_B], x[m][has_B]))
            rebuilt_BE = branch.rebuild(q_BD[has_B].detach(), parts[m])
            losses["rebuild"].append(unexplained_share(rebuilt_BE, x[m][has_B]))
            if weights["self"]:
                losses["self"].append(unexplained_share(branch.predict(q_BD[has_B]), x[m][has_B]))
            if bool(both_B.any()):
                q_other_PD = q_image_PD if m == "text" else q_text_PD
                losses["cross"].append(unexplained_share(branch.predict(q_other_PD), x[m][both_B]))

        pairs = self._pairs(q_BD, parts, batch)
        if config.information_weight:
            losses["information"] = [self._network(pair).bound(*vectors) for pair, vectors in pairs.items()]
        if config.decorrelation_weight:
            losses["decorrelation"] = [cross_covariance(*vectors) for vectors in pairs.values()]
        zero = q_BD.new_zeros(())
        terms = {name: weights[name] * sum(found, zero) for name, found in losses.items()}
        unexplained = sum(losses["rebuild"], zero).detach() / max(1, len(losses["rebuild"]))
        detached = {pair: (a_BD.detach(), b_BD.detach()) for pair, (a_BD, b_BD) in pairs.items()}
        return Outcome(terms, quantised, unexplained, detached)

    def alone(self, whole_BD: Tensor, z: dict[str, Tensor], both_B: Tensor) -> tuple[Tensor, Tensor]:
        """What the shared quantiser reads where only the text, or only the image, of an item is given: (P, D) each."""
        length = self.config.dim**0.5
        return z["text"][both_B] * length, z["image"][both_B] * length

    def teachers(self, whole_BD: Tensor, text_PD: Tensor, image_PD: Tensor) -> Tensor:
        """The vectors (B + 2P, D) towards which the codes move that the three views have chosen."""
        return torch.cat([whole_BD, image_PD, text_PD])

    def _weights(self, ramp: float, paired: bool) -> dict[str, float]:
        """The weight of every term; without a pair there is nothing to predict across, and the shared codes describe
        what is there."""
        config = self.config
        weights: dict[str, float] = {name: getattr(config, f"{name}_weight") for name in TERMS}
        if not paired:
            weights["self"] = max(config.self_weight, config.cross_weight)
        return weights | {name: weights[name] * ramp for name in ("information", "decorrelation")}

    def mismatch(self, outcome: Outcome) -> Tensor | None:
        """The loss of the vCLUB networks in their own steps, a scalar; ``None`` if nothing asks for their bounds."""
        if not self.config.information_weight or not outcome.pairs:
            return None
        return torch.stack([self._network(pair).mismatch(*vectors) for pair, vectors in outcome.pairs.items()]).sum()

    @torch.no_grad()
    def initialise(self, model: DST, learners: dict[str, CodebookLearner], some: Drawn) -> None:
        """k-means, level after level, on what the warmed-up networks make of normalised embeddings."""
        learners["shared"].initialise(model.read(some(None))[1])
        for m in model.known():
            h_ND, shared_NL = _features(model, m, some(m))
            learners[f"expected_{m}"].settle(h_ND, shared_NL[:, :1])
            learners[m].initialise(model.branch(m).left_over(h_ND, shared_NL))

    @torch.no_grad()
    def settle(self, model: DST, learners: dict[str, CodebookLearner], some: Drawn) -> None:
        """Once the networks stand still, replace the expected features' moving averages by the very means."""
        for m in model.known():
            h_ND, shared_NL = _features(model, m, some(m))
            learners[f"expected_{m}"].settle(h_ND, shared_NL[:, :1])

    def _network(self, pair: tuple[str, str]) -> VCLUB:
        return cast(VCLUB, self.bounds["_".join(pair)])

    @staticmethod
    def _pairs(
        shared_BD: Tensor, parts: dict[str, Tensor], batch: Embeddings
    ) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
        """Both parts' vectors for the items that have both parts."""
        pairs = {("shared", m): (shared_BD[batch.present(m)], part_BD) for m, part_BD in parts.items()}
        if len(parts) == len(MODALITIES):
            text_BD, image_BD = (parts[m][batch.has_both_N[batch.present(m)]] for m in MODALITIES)
            pairs["text", "image"] = (text_BD, image_BD)
        return {pair: vectors for pair, vectors in pairs.items() if len(vectors[0]) > 1}


def _features(model: DST, modality: str, items: Embeddings) -> tuple[Tensor, Tensor]:
    """The modality's features (N, D) and the shared codes (N, L) of items that all have it."""
    x, shared_ND = model.read(items)
    return model.branch(modality).features(x[modality]), model.shared.encode(shared_ND)


def unexplained_share(rebuilt_BE: Tensor, x_BE: Tensor) -> Tensor:
    """The share of the variance left unexplained, a scalar: 1 for the mean item, 0 for a perfect copy.

    Its minimiser, the conditional mean, points where the expected cosine is largest.
    """
    return (rebuilt_BE - x_BE).square().mean()

"""The training objective: every loss of the tokenizer, weighted, for one batch.

Two departures from the paper. It withholds a modality from two thirds of the batch; here every item with both is seen
in three views, whole, text alone and image alone, which costs little (the networks run once) and draws no lots. And
decoders do not shape the shared codes, since that would fill their spare levels with what one modality alone knows:
cross-modal prediction does, and the share of own content that ``self_weight`` asks for.

B items, E embedding width, D width of the code space.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tokenizer.alignment import agreement_loss, contrastive_loss, geometry_loss
from tokenizer.config import TokenizerConfig
from tokenizer.dst import DST
from tokenizer.embeddings import MODALITIES, Embeddings
from tokenizer.information import VCLUB, cross_covariance
from tokenizer.quantiser import Quantised, ResidualQuantiser

PAIRS = (("shared", "text"), ("shared", "image"), ("text", "image"))


@dataclass(frozen=True)
class Outcome:
    """A batch's weighted loss terms by name, what each quantiser saw, and the (detached) pairs of parts for vCLUB."""

    terms: dict[str, Tensor]
    quantised: list[tuple[ResidualQuantiser, Quantised]]
    pairs: dict[tuple[str, str], tuple[Tensor, Tensor]]

    @property
    def loss(self) -> Tensor:
        """The sum of all terms."""
        return torch.stack(list(self.terms.values())).sum()


class Objective(nn.Module):
    """Losses of a batch; owns the vCLUB networks, which are no part of the finished tokenizer."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.bounds = nn.ModuleDict({"_".join(pair): VCLUB(config.dim, config.dim) for pair in PAIRS})

    def forward(self, model: DST, batch: Embeddings, information_ramp: float) -> Outcome:
        """Losses of normalised embeddings (B, E); ``information_ramp`` in 0 to 1 warms the MI penalty up."""
        config, both_B = self.config, batch.has_both_N
        x = {m: model.branch(m).standardise(batch.vectors(m)) for m in MODALITIES}
        noisy = {m: x[m] + config.input_noise * torch.randn_like(x[m]) for m in MODALITIES}
        z = {m: model.branch(m).align(noisy[m]) for m in MODALITIES}
        views_BD = [model.merge(z["text"], z["image"], batch.has_text_N, batch.has_image_N)]
        views_BD += [z[m][both_B] * config.dim**0.5 for m in MODALITIES]
        shared = model.shared(torch.cat(views_BD))
        whole_BD, *alone = shared.vectors_BD.split([len(view) for view in views_BD])
        from_alone = dict(zip(MODALITIES, alone, strict=True))

        # Without a pair there is nothing to predict across; the shared codes then describe what is there.
        own_weight = config.self_weight if bool(both_B.any()) else max(config.self_weight, config.cross_weight)
        align, agreement, geometry, rebuilt, crossed, own = ([] for _ in range(6))
        if int(both_B.sum()) > 1:
            align.append(contrastive_loss(z["text"][both_B], z["image"][both_B], config.temperature))
            agreement.append(agreement_loss(z["text"][both_B], z["image"][both_B]))
        parts: dict[str, Tensor] = {}
        quantised: list[tuple[ResidualQuantiser, Quantised]] = [(model.shared, shared)]
        for m in MODALITIES:
            branch, has_B = model.branch(m), batch.present(m)
            if not bool(has_B.any()):
                continue
            x_BE, q_BD = x[m][has_B], whole_BD[has_B]
            specific = branch.quantiser(branch.left_over(noisy[m][has_B], q_BD))
            quantised.append((branch.quantiser, specific))
            parts[m] = specific.vectors_BD
            geometry.append(geometry_loss(z[m][has_B], x_BE))
            rebuilt.append(_error(branch.rebuild(q_BD.detach(), specific.vectors_BD), x_BE))
            if own_weight:
                own.append(_error(branch.predict(q_BD), x_BE))
            if bool(both_B.any()):
                other = next(name for name in MODALITIES if name != m)
                crossed.append(_error(branch.predict(from_alone[other]), x[m][both_B]))

        pairs = self._pairs(whole_BD, parts, batch)
        bounds = [self._network(pair).bound(*vectors) for pair, vectors in pairs.items()]
        covariances = [cross_covariance(*vectors) for vectors in pairs.values()]
        terms = {
            "align": config.align_weight * _sum(align, whole_BD),
            "agreement": config.agreement_weight * _sum(agreement, whole_BD),
            "geometry": config.geometry_weight * _sum(geometry, whole_BD),
            "rebuild": config.rebuild_weight * _sum(rebuilt, whole_BD),
            "cross": config.cross_weight * _sum(crossed, whole_BD),
            "self": own_weight * _sum(own, whole_BD),
            "commitment": config.commitment_weight * _sum((q.commitment for _, q in quantised), whole_BD),
            "information": config.information_weight * information_ramp * _sum(bounds, whole_BD),
            "decorrelation": config.decorrelation_weight * information_ramp * _sum(covariances, whole_BD),
        }
        return Outcome(terms, quantised, {pair: (a.detach(), b.detach()) for pair, (a, b) in pairs.items()})

    def mismatch(self, outcome: Outcome) -> Tensor:
        """What the vCLUB networks descend in their own steps."""
        fits = [self._network(pair).mismatch(*vectors) for pair, vectors in outcome.pairs.items()]
        return torch.stack(fits).sum()

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
            if len(text_BD) > 1:
                pairs["text", "image"] = (text_BD, image_BD)
        return pairs


def _error(rebuilt_BE: Tensor, x_BE: Tensor) -> Tensor:
    """The share of the variance left unexplained: 1 for the mean item, 0 for a perfect copy.

    Its minimiser, the conditional mean, points where the expected cosine is largest.
    """
    return (rebuilt_BE - x_BE).square().mean()


def _sum(losses: Iterable[Tensor], like: Tensor) -> Tensor:
    return sum(losses, like.new_zeros(()))

"""Baseline: RQ-VAE (Lee et al. 2022; TIGER, Rajput et al. 2023) on the concatenated embeddings of both modalities.

B items, E embedding width of a modality, D width of the code space, L levels, S slots (all of them shared).
"""

from typing import cast

import torch
from torch import Tensor, nn

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings
from tokenizer.base.networks import Network, Standardiser
from tokenizer.base.tokenizer import Bounds, Parts, Tokenizer
from tokenizer.dst.objective import Drawn, Outcome, unexplained_share
from tokenizer.quantisation.codebooks import CodebookLearner
from tokenizer.quantisation.quantiser import ResidualQuantiser


class RQVAE(Tokenizer):
    """One encoder, one residual quantiser, one decoder; an absent modality counts as the mean item's.

    Networks, codebook learning, noise and search are the DST's, so that a comparison shows the method's own difference.
    """

    def __init__(self, config: TokenizerConfig, text_dim: int, image_dim: int) -> None:
        super().__init__(config, text_dim, image_dim)
        width, layout = text_dim + image_dim, config.layout()
        self.standardise = nn.ModuleDict({"text": Standardiser(text_dim), "image": Standardiser(image_dim)})
        self.encoder = Network(width, config.hidden, config.dim, config.dropout)
        self.decoder = Network(config.dim, config.hidden, width, config.dropout)
        self.quantiser = ResidualQuantiser(layout.slots, layout.codebook_size, config.dim)

    def standardiser(self, modality: str) -> Standardiser:
        """Mean and spread of ``"text"`` or ``"image"``."""
        return cast(Standardiser, self.standardise[modality])

    def inputs(self, items: Embeddings) -> Tensor:
        """Both standardised embeddings side by side, (N, text_dim + image_dim), zeros for an absent one."""
        both = [self.standardiser(m)(items.vectors(m)).masked_fill(~items.present(m)[:, None], 0.0) for m in MODALITIES]
        return torch.cat(both, dim=1)

    def assign(self, items: Embeddings, bounds: Bounds | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`."""
        x_NE = self.inputs(items)
        error_N = x_NE.new_zeros(len(x_NE))
        if bounds is not None:
            errors = [self.standardiser(m).error(items.vectors(m)) for m in MODALITIES]
            error_N = bounds[self.encoder](x_NE, torch.stack(errors).norm(dim=0))
        return self.quantiser.search(self.encoder(x_NE), error_N, self.config.beam)

    def restore(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`."""
        x = self.decoder(self.quantiser.lookup(codes_NS)).split([self.text_dim, self.image_dim], dim=1)
        text_NE, image_NE = (
            self.standardiser(m).invert(x_NE) * (m in self.known()) for m, x_NE in zip(MODALITIES, x, strict=True)
        )
        return text_NE, image_NE

    def look_up(self, codes_NS: Tensor) -> Parts:
        """See :class:`Tokenizer`; all codes are shared ones."""
        return Parts.shared_alone(self.quantiser.lookup(codes_NS))


class RQVAEObjective(nn.Module):
    """Reconstruction of what is there, and commitment."""

    def __init__(self, model: RQVAE) -> None:
        super().__init__()
        self.config = model.config

    def learners(self, model: RQVAE) -> dict[str, CodebookLearner]:
        """What teaches the codebooks."""
        config = self.config
        return {
            "shared": CodebookLearner(
                model.quantiser, decay=config.ema_decay, revive_below=config.revive_below, seed=config.seed
            )
        }

    def forward(self, model: RQVAE, batch: Embeddings, ramp: float) -> Outcome:
        """Losses of normalised embeddings (B, E)."""
        config = self.config
        x_BE = model.inputs(batch)
        quantised = model.quantiser(model.encoder(x_BE + config.input_noise * torch.randn_like(x_BE)))
        rebuilt = model.decoder(quantised.vectors_BD).split([model.text_dim, model.image_dim], dim=1)
        originals = x_BE.split([model.text_dim, model.image_dim], dim=1)
        errors = [
            unexplained_share(a_BE[batch.present(m)], b_BE[batch.present(m)])
            for m, a_BE, b_BE in zip(MODALITIES, rebuilt, originals, strict=True)
            if bool(batch.present(m).any())
        ]
        error = torch.stack(errors).sum() if errors else x_BE.new_zeros(())
        terms = {
            "rebuild": config.rebuild_weight * error,
            "commitment": config.commitment_weight * quantised.commitment,
        }
        return Outcome(terms, {"shared": quantised}, error.detach() / max(1, len(errors)), {})

    def mismatch(self, outcome: Outcome) -> None:
        """There is no network beside the tokenizer's."""

    @torch.no_grad()
    def initialise(self, model: RQVAE, learners: dict[str, CodebookLearner], some: Drawn) -> None:
        """k-means, level after level, on what the warmed-up encoder makes of normalised embeddings."""
        learners["shared"].initialise(model.encoder(model.inputs(some(None))))

    def settle(self, model: RQVAE, learners: dict[str, CodebookLearner], some: Drawn) -> None:
        """Nothing is left to settle."""

"""The Disentangled Semantic Tokenizer (Hi-SAM): shared codes of what both modalities tell, own codes of the rest.

N items, E embedding width of a modality, D width of the code space, L levels, S slots.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings
from tokenizer.base.networks import Standardiser
from tokenizer.base.tokenizer import Bounds, Parts, Tokenizer
from tokenizer.dst.alignment import consensus
from tokenizer.dst.branch import Branch
from tokenizer.dst.rounding import Errors
from tokenizer.quantisation.quantiser import ResidualQuantiser


class DST(Tokenizer):
    """Two branches, one a modality, around the shared quantiser of their consensus."""

    def __init__(self, config: TokenizerConfig, text_dim: int, image_dim: int) -> None:
        super().__init__(config, text_dim, image_dim)
        shape = config.dim, config.hidden, config.dropout
        self.text = Branch(text_dim, *shape, config.text_levels, config.codebook_size)
        self.image = Branch(image_dim, *shape, config.image_levels, config.codebook_size)
        self.shared = ResidualQuantiser(config.shared_levels, config.codebook_size, config.dim)

    def branch(self, modality: str) -> Branch:
        """The networks of ``"text"`` or ``"image"``."""
        return self.text if modality == "text" else self.image

    def standardiser(self, modality: str) -> Standardiser:
        """Mean and spread of ``"text"`` or ``"image"``."""
        return self.branch(modality).standardise

    def merge(self, z_text_BD: Tensor, z_image_BD: Tensor, has_text_B: Tensor, has_image_B: Tensor) -> Tensor:
        """What the shared quantiser reads, (B, D): the consensus at length √D, where components have unit spread."""
        c_BD = consensus(z_text_BD, z_image_BD, has_text_B, has_image_B, self.config.text_share)
        return c_BD * self.config.dim**0.5

    def read(self, items: Embeddings) -> tuple[dict[str, Tensor], Tensor]:
        """Standardised embeddings by modality, (N, E) each, and what the shared quantiser reads, (N, D), of normalised
        embeddings."""
        x = {m: self.branch(m).standardise(items.vectors(m)) for m in MODALITIES}
        z = {m: self.branch(m).align(x[m]) for m in MODALITIES}
        return x, self.merge(z["text"], z["image"], items.has_text_N, items.has_image_N)

    def assign(self, items: Embeddings, bounds: Bounds | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`. Shared codes are the nearest level by level, which is what keeps the first of them
        when a modality is withheld; a modality's own codes are the best sum that a beam search finds."""
        x = {m: self.branch(m).standardise(items.vectors(m)) for m in MODALITIES}
        y = {m: self.branch(m).projection(x[m]) for m in MODALITIES}
        z = {m: F.normalize(y[m], dim=1) for m in MODALITIES}
        merged_ND = self.merge(z["text"], z["image"], items.has_text_N, items.has_image_N)
        errors = Errors(self, items, x, bounds)
        shared_NL, sure_N = self.shared.search(merged_ND, errors.of_merged(y, z))
        codes = [shared_NL]
        for m in MODALITIES:
            branch = self.branch(m)
            h_ND = branch.features(x[m])
            u_ND = branch.left_over(h_ND, shared_NL)
            own_NL, own_sure_N = branch.quantiser.search(u_ND, errors.of_left_over(m, h_ND, u_ND), self.config.beam)
            codes.append(own_NL.masked_fill(~items.present(m)[:, None], self.layout.absent))
            sure_N &= own_sure_N | ~items.present(m)
        return torch.cat(codes, dim=1), sure_N

    def restore(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`."""
        parts = self.look_up(codes_NS)
        rebuilt = []
        for m, own_ND in zip(MODALITIES, (parts.text_ND, parts.image_ND), strict=True):
            branch = self.branch(m)
            absent_N = (codes_NS[:, self.layout.spans()[m]] == self.layout.absent).any(dim=1)
            x_NE = torch.where(
                absent_N[:, None], branch.predict(parts.shared_ND), branch.rebuild(parts.shared_ND, own_ND)
            )
            rebuilt.append(branch.restore(x_NE) * (m in self.known()))
        return rebuilt[0], rebuilt[1]

    def look_up(self, codes_NS: Tensor) -> Parts:
        """See :class:`Tokenizer`."""
        spans, own = self.layout.spans(), []
        for m in MODALITIES:
            own_NL = codes_NS[:, spans[m]]
            absent_NL = own_NL == self.layout.absent
            vectors_ND = self.branch(m).quantiser.lookup(own_NL.masked_fill(absent_NL, 0))
            own.append(vectors_ND.masked_fill(absent_NL.any(dim=1, keepdim=True), 0.0))
        return Parts(self.shared.lookup(codes_NS[:, spans["shared"]]), own[0], own[1])

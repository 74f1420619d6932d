"""Baseline: residual k-means (faiss) on the concatenated embeddings of both modalities.

N items, E width of both embeddings together, K codes a level, L levels, S slots (all of them shared).
"""

import torch
from torch import Tensor

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.base.rounding import grown, unit
from tokenizer.base.tokenizer import Bounds, Parts, Tokenizer
from tokenizer.quantisation.quantiser import ResidualQuantiser


class RQKMeans(Tokenizer):
    """No networks: a row of codes is the nearest sum of codebook vectors that a beam search finds, as in faiss.

    An absent modality counts as zeros, so its codes carry no more than that.
    """

    def __init__(self, config: TokenizerConfig, text_dim: int, image_dim: int) -> None:
        super().__init__(config, text_dim, image_dim)
        self.quantiser = ResidualQuantiser(config.layout().slots, config.codebook_size, text_dim + image_dim)

    def learn(self, items: Embeddings) -> None:
        """Fit the codebooks to normalised embeddings, on the CPU.

        Raises:
            TokenizerError: the codebook's size is no power of two, which is all that faiss can do.
        """
        import faiss  # half a second, which processes that only read a tokenizer are spared

        layout = self.layout
        bits = layout.codebook_size.bit_length() - 1
        if 2**bits != layout.codebook_size:
            raise TokenizerError(
                f"rq_kmeans needs a codebook_size that is a power of two, not {layout.codebook_size}; try {2**bits}"
            )
        x_NE = torch.cat([items.vectors(m) for m in MODALITIES], dim=1).float()
        trained = faiss.ResidualQuantizer(x_NE.shape[1], layout.slots, bits)
        trained.cp.seed = self.config.seed
        trained.cp.min_points_per_centroid = 1  # few items are no reason to warn
        trained.max_beam_size = self.config.beam
        if len(x_NE) < x_NE.shape[1]:  # principal components, by which faiss begins, want as many items as numbers
            trained.train_type = faiss.ResidualQuantizer.Train_default
        trained.train(x_NE.numpy())
        codebooks = torch.from_numpy(faiss.vector_to_array(trained.codebooks))
        self.quantiser.codebooks_LKD.copy_(codebooks.view_as(self.quantiser.codebooks_LKD))
        self.quantiser.initialised.fill_(True)

    def assign(self, items: Embeddings, bounds: Bounds | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`."""
        x_NE = torch.cat([items.vectors(m) for m in MODALITIES], dim=1)
        error_N = x_NE.new_full((len(x_NE),), 2 * grown(x_NE.shape[1]) * unit(x_NE.dtype))
        return self.quantiser.search(x_NE, error_N, self.config.beam)

    def restore(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Tokenizer`."""
        text_NE, image_NE = self.quantiser.lookup(codes_NS).split([self.text_dim, self.image_dim], dim=1)
        return text_NE, image_NE

    def look_up(self, codes_NS: Tensor) -> Parts:
        """See :class:`Tokenizer`; all codes are shared ones."""
        return Parts.shared_alone(self.quantiser.lookup(codes_NS))

"""One modality's networks and codebooks.

B items, E embedding width of the modality, D width of the code space, L shared levels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.base.networks import Network, Standardiser
from tokenizer.quantisation.quantiser import ResidualQuantiser


class Branch(nn.Module):
    """Projection P onto the common sphere, features H of its own, the features that the first shared code leads to
    expect, the quantiser of what is left, decoder D from shared and own codes, predictor S from the shared codes alone.

    Embeddings in and out are standardised, but those that :meth:`restore` gives.
    """

    def __init__(self, width: int, dim: int, hidden: int, dropout: float, levels: int, codebook_size: int) -> None:
        super().__init__()
        self.standardise = Standardiser(width)
        self.projection = Network(width, hidden, dim, dropout)
        self.features = Network(width, hidden, dim, dropout)
        self.decoder = Network(2 * dim, hidden, width, dropout)
        self.predictor = Network(dim, hidden, width, dropout)
        self.quantiser = ResidualQuantiser(levels, codebook_size, dim)
        self.expected = ResidualQuantiser(1, codebook_size, dim)

    @torch.no_grad()
    def start_from_components(self, x_NE: Tensor) -> None:
        """Let the features begin as the principal components of standardised embeddings (N, E), at unit spread, and the
        decoder as the way back from them. Our departure: on catalogues of some thousand items, networks that begin at
        random learn less than these components already tell."""
        dim = self.quantiser.codebooks_LKD.shape[2]
        variances_E, axes_EE = torch.linalg.eigh(x_NE.T @ x_NE / len(x_NE))
        axes_EC, spread = axes_EE[:, -dim:], variances_E[-dim:].mean().sqrt()
        components = axes_EC.shape[1]
        self.features.linear.weight[:components].copy_(axes_EC.T / spread)
        self.decoder.linear.weight[:, dim:].zero_()
        self.decoder.linear.weight[:, dim : dim + components].copy_(axes_EC * spread)
        for network in (self.features, self.decoder):
            network.start_linear()

    def align(self, x_BE: Tensor) -> Tensor:
        """z_m, the embeddings (B, E) on the common unit sphere: (B, D)."""
        return F.normalize(self.projection(x_BE), dim=1)

    def left_over(self, h_BD: Tensor, shared_BL: Tensor) -> Tensor:
        """u_m, what the first of the shared codes (B, L) leaves over of the features: (B, D).

        Departure from the paper, whose residual is a network's: each first shared code carries the mean of its items'
        features, and u_m is the difference to it. So the mean of u_m is the same (zero) under every one of these
        codes, and no linear probe finds in it what they tell.
        """
        return h_BD - self.expected.lookup(shared_BL[:, :1])

    def rebuild(self, q_shared_BD: Tensor, q_own_BD: Tensor) -> Tensor:
        """D_m: the embedding (B, E) from the shared and the modality's own code vectors."""
        return self.decoder(torch.cat([q_shared_BD, q_own_BD], dim=1))

    def predict(self, q_shared_BD: Tensor) -> Tensor:
        """S_m: the embedding (B, E) from the shared code vectors alone."""
        return self.predictor(q_shared_BD)

    def restore(self, x_BE: Tensor) -> Tensor:
        """Standardised embeddings (B, E) as the encoder gives them, about unit length."""
        return self.standardise.invert(x_BE)

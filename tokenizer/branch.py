"""One modality's networks and codebooks.

B items, E embedding width of the modality, D width of the code space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks import Network, Standardiser
from tokenizer.quantiser import ResidualQuantiser


class Branch(nn.Module):
    """Projection P onto the common sphere, features H of its own, residual network R that says what the shared codes
    leave over, its quantiser, decoder D from shared and own codes, predictor S from the shared codes alone.

    Embeddings in and out are standardised, except for :meth:`restore`. ``seen`` tells whether any training item had
    the modality.
    """

    seen: Tensor

    def __init__(self, width: int, dim: int, hidden: int, dropout: float, levels: int, codebook_size: int) -> None:
        super().__init__()
        self.width = width
        self.standardise = Standardiser(width)
        self.projection = Network(width, hidden, dim, dropout)
        self.features = Network(width, hidden, dim, dropout)
        self.residual = Network(2 * dim, hidden, dim, dropout)
        self.decoder = Network(2 * dim, hidden, width, dropout)
        self.predictor = Network(dim, hidden, width, dropout)
        self.quantiser = ResidualQuantiser(levels, codebook_size, dim)
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def learn_statistics(self, e_ND: Tensor) -> None:
        """Take mean and spread from the normalised training embeddings (N, E), of which there may be none."""
        if len(e_ND):
            self.standardise.learn(e_ND)
            self.seen.fill_(True)

    def align(self, x_BE: Tensor) -> Tensor:
        """z_m, the embeddings (B, E) on the common unit sphere: (B, D)."""
        return F.normalize(self.projection(x_BE), dim=1)

    def left_over(self, x_BE: Tensor, q_shared_BD: Tensor) -> Tensor:
        """u_m, what the shared codes leave over: (B, D). No gradient flows into the shared codes."""
        return self.residual(torch.cat([self.features(x_BE), q_shared_BD.detach()], dim=1))

    def rebuild(self, q_shared_BD: Tensor, q_own_BD: Tensor) -> Tensor:
        """D_m: the embedding (B, E) from the shared and the modality's own code vectors."""
        return self.decoder(torch.cat([q_shared_BD, q_own_BD], dim=1))

    def predict(self, q_shared_BD: Tensor) -> Tensor:
        """S_m: the embedding (B, E) from the shared code vectors alone."""
        return self.predictor(q_shared_BD)

    def restore(self, x_BE: Tensor) -> Tensor:
        """Standardised embeddings (B, E) as the encoder gives them, about unit length; zero if none was ever seen."""
        return self.standardise.invert(x_BE) * self.seen

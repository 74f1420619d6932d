"""How codebooks learn: k-means at the start, exponential moving averages after, dead codes drawn anew.

B vectors of a batch, N of the training sample, D width, L levels, K codes a level.
"""

import faiss
import torch
from torch import Tensor

from tokenizer.quantiser import Quantised, ResidualQuantiser, squared_distances

KMEANS_ITERATIONS = 20


class CodebookLearner:
    """Keeps the moving shares and sums behind one quantiser's codebooks.

    Departure from the paper, which trains codebooks by gradient: moving averages follow the encoder without a
    learning rate of their own.
    """

    def __init__(self, quantiser: ResidualQuantiser, *, decay: float, revive_below: float, seed: int) -> None:
        self.quantiser = quantiser
        self.decay = decay
        self.revive_below = revive_below
        self.seed = seed
        self.shares_LK = torch.zeros(quantiser.codebooks_LKD.shape[:2], device=quantiser.codebooks_LKD.device)
        self.sums_LKD = torch.zeros_like(quantiser.codebooks_LKD)

    @torch.no_grad()
    def initialise(self, x_ND: Tensor) -> None:
        """Fit level after level by k-means on (N, D), N not below K."""
        residual_ND = x_ND
        for level, codebook_KD in enumerate(self.quantiser.codebooks_LKD):
            codebook_KD.copy_(_kmeans(residual_ND, len(codebook_KD), self.seed + level))
            codes_N = squared_distances(residual_ND, codebook_KD).argmin(dim=1)
            self.shares_LK[level], self.sums_LKD[level] = _statistics(codes_N, residual_ND, len(codebook_KD))
            residual_ND = residual_ND - codebook_KD[codes_N]
        self.quantiser.initialised.fill_(True)

    @torch.no_grad()
    def update(self, batch: Quantised) -> None:
        """Move the codebooks towards the residuals that chose them, and draw dead codes anew from the batch."""
        for level, codebook_KD in enumerate(self.quantiser.codebooks_LKD):
            residual_BD = batch.residuals_LBD[level]
            shares_K, sums_KD = _statistics(batch.codes_BL[:, level], residual_BD, len(codebook_KD))
            self.shares_LK[level].lerp_(shares_K, 1 - self.decay)
            self.sums_LKD[level].lerp_(sums_KD, 1 - self.decay)
            self._revive(level, residual_BD)
            codebook_KD.copy_(self.sums_LKD[level] / self.shares_LK[level].clamp(min=1e-9)[:, None])

    def _revive(self, level: int, residual_BD: Tensor) -> None:
        shares_K = self.shares_LK[level]
        mean = 1 / len(shares_K)
        dead = (shares_K < self.revive_below * mean).nonzero()[:, 0]
        drawn = torch.randint(len(residual_BD), dead.shape, device=dead.device)
        shares_K[dead] = mean
        self.sums_LKD[level, dead] = residual_BD[drawn] * mean


def _statistics(codes_B: Tensor, x_BD: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Which share of the vectors chose each code (K,), and their sum as a share of all vectors (K, D)."""
    counts_K = torch.bincount(codes_B, minlength=codebook_size).to(x_BD.dtype)
    sums_KD = x_BD.new_zeros(codebook_size, x_BD.shape[1]).index_add_(0, codes_B, x_BD)
    return counts_K / len(x_BD), sums_KD / len(x_BD)


def _kmeans(x_ND: Tensor, clusters: int, seed: int) -> Tensor:
    kmeans = faiss.Kmeans(
        x_ND.shape[1], clusters, niter=KMEANS_ITERATIONS, seed=seed, min_points_per_centroid=1, verbose=False
    )
    kmeans.train(x_ND.cpu().float().numpy())
    return torch.from_numpy(kmeans.centroids).to(x_ND)

"""How codebooks learn: k-means at the start, exponential moving averages after, dead codes drawn anew.

B vectors of a batch, N of the training sample, D width, L levels, K codes a level. With several workers each sees
its share of a batch; sums go over all of them, so that codebooks stay equal everywhere.
"""

import torch
from torch import Tensor

from tokenizer.base.distributed import from_fullest, total
from tokenizer.quantisation.quantiser import Quantised, ResidualQuantiser, squared_distances

KMEANS_ITERATIONS = 20
VANISHED = 1e-9  # a share that no longer tells a code's mean, long before float32 loses it


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
            counts_K, sums_KD = _statistics(codes_N, residual_ND, len(codebook_KD))
            self.shares_LK[level], self.sums_LKD[level] = counts_K / len(x_ND), sums_KD / len(x_ND)
            residual_ND = residual_ND - codebook_KD[codes_N]
        self.quantiser.initialised.fill_(True)

    @torch.no_grad()
    def settle(self, x_ND: Tensor, codes_NL: Tensor) -> None:
        """Set the codebooks to the very means, level after level, of (N, D) under codes that are given."""
        residual_ND = x_ND
        for level, codebook_KD in enumerate(self.quantiser.codebooks_LKD):
            counts_K, sums_KD = _statistics(codes_NL[:, level], residual_ND, len(codebook_KD))
            self.shares_LK[level], self.sums_LKD[level] = counts_K / len(x_ND), sums_KD / len(x_ND)
            self._follow_statistics(level)
            residual_ND = residual_ND - codebook_KD[codes_NL[:, level]]
        self.quantiser.initialised.fill_(True)

    @torch.no_grad()
    def update(self, batch: Quantised) -> None:
        """Move the codebooks towards the residuals that chose them, and draw dead codes anew from the batch."""
        for level, codebook_KD in enumerate(self.quantiser.codebooks_LKD):
            residual_BD = batch.residuals_LBD[level].float()
            counts_K, sums_KD = _statistics(batch.codes_BL[:, level], residual_BD, len(codebook_KD))
            counts_K, sums_KD = total(counts_K), total(sums_KD)
            rows = counts_K.sum()
            if rows == 0:
                continue
            self.shares_LK[level].lerp_(counts_K / rows, 1 - self.decay)
            self.sums_LKD[level].lerp_(sums_KD / rows, 1 - self.decay)
            if self.revive_below:
                self._revive(level, residual_BD)
            self._follow_statistics(level)

    def _follow_statistics(self, level: int) -> None:
        """A code that nothing chooses (any more) stays where it is."""
        codebook_KD, shares_K1 = self.quantiser.codebooks_LKD[level], self.shares_LK[level, :, None]
        codebook_KD.copy_(torch.where(shares_K1 > VANISHED, self.sums_LKD[level] / shares_K1, codebook_KD))

    def _revive(self, level: int, residual_BD: Tensor) -> None:
        shares_K = self.shares_LK[level]
        mean = 1 / len(shares_K)
        dead = (shares_K < self.revive_below * mean).nonzero()[:, 0]
        if len(dead):
            drawn_MD = residual_BD.new_zeros(len(dead), residual_BD.shape[1])
            if len(residual_BD):
                drawn_MD = residual_BD[torch.randint(len(residual_BD), dead.shape, device=dead.device)]
            shares_K[dead] = mean
            self.sums_LKD[level, dead] = from_fullest(drawn_MD, len(residual_BD)) * mean


def _statistics(codes_B: Tensor, x_BD: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How many vectors chose each code (K,), and their sum (K, D)."""
    counts_K = torch.bincount(codes_B, minlength=codebook_size).to(x_BD.dtype)
    return counts_K, x_BD.new_zeros(codebook_size, x_BD.shape[1]).index_add_(0, codes_B, x_BD)


def _kmeans(x_ND: Tensor, clusters: int, seed: int) -> Tensor:
    import faiss  # half a second, which processes that only read a tokenizer are spared

    settings = {"niter": KMEANS_ITERATIONS, "seed": seed, "min_points_per_centroid": 1, "verbose": False}
    gpu = x_ND.is_cuda and faiss.get_num_gpus() > 0  # of faiss-gpu; faiss-cpu has none
    kmeans = faiss.Kmeans(x_ND.shape[1], clusters, gpu=gpu, **settings)
    kmeans.train(x_ND.cpu().float().numpy())
    return torch.from_numpy(kmeans.centroids).to(x_ND)

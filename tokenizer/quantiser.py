"""Residual quantisation: codes that describe a vector coarse to fine.

B vectors, D width, L levels, K codes a level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Two codes nearer to each other than this share of the squared scale count as tied, far above float64 rounding.
TIE = 1e-9


@dataclass(frozen=True)
class Quantised:
    """``codes_BL`` int64, their sum ``vectors_BD`` (gradients pass straight through to the input), and by level the
    detached residual that was quantised, ``residuals_LBD``; ``commitment`` is the mean squared distance to the codes
    summed over the levels (one number)."""

    codes_BL: Tensor
    vectors_BD: Tensor
    residuals_LBD: Tensor
    commitment: Tensor


class ResidualQuantiser(nn.Module):
    """Each level quantises what the levels before left over, by its nearest codebook vector.

    Until ``initialised`` is set (with the codebooks) the forward pass lets vectors through as they are.
    """

    codebooks_LKD: Tensor
    initialised: Tensor

    def __init__(self, levels: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("codebooks_LKD", torch.zeros(levels, codebook_size, dim))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.codebooks_LKD)

    def forward(self, x_BD: Tensor) -> Quantised:
        """Quantise (B, D) for training."""
        if not self.initialised:
            empty = torch.zeros(len(x_BD), self.levels, dtype=torch.int64, device=x_BD.device)
            return Quantised(empty, x_BD, x_BD.new_zeros(self.levels, *x_BD.shape), x_BD.new_zeros(()))
        if self.levels == 0:
            nothing_BD = torch.zeros_like(x_BD)
            return Quantised(self.encode(x_BD), nothing_BD, x_BD.new_zeros(0, *x_BD.shape), x_BD.new_zeros(()))
        codes, residuals = [], []
        total_BD, commitment = torch.zeros_like(x_BD), x_BD.new_zeros(())
        for codebook_KD in self.codebooks_LKD:
            residuals.append((x_BD - total_BD).detach())
            codes.append(squared_distances(residuals[-1], codebook_KD).argmin(dim=1))
            total_BD = total_BD + codebook_KD[codes[-1]]
            commitment = commitment + F.mse_loss(x_BD, total_BD)
        straight_BD = x_BD + (total_BD - x_BD).detach()
        return Quantised(torch.stack(codes, dim=1), straight_BD, torch.stack(residuals), commitment)

    @torch.no_grad()
    def encode(self, x_BD: Tensor) -> Tensor:
        """Codes (B, L) int64 of (B, D); among tied codes the lowest."""
        codes_BL = torch.empty(len(x_BD), self.levels, dtype=torch.int64, device=x_BD.device)
        for level, codebook_KD in enumerate(self.codebooks_LKD):
            distance_BK = squared_distances(x_BD, codebook_KD)
            scale = codebook_KD.square().sum(dim=1).max()
            tied_BK = distance_BK <= distance_BK.amin(dim=1, keepdim=True) + TIE * scale
            codes_BL[:, level] = tied_BK.to(torch.int8).argmax(dim=1)
            x_BD = x_BD - codebook_KD[codes_BL[:, level]]
        return codes_BL

    def lookup(self, codes_BL: Tensor) -> Tensor:
        """The sum (B, D) of the codebook vectors that ``codes_BL`` (B, L) names."""
        level_L = torch.arange(self.levels, device=codes_BL.device)
        return self.codebooks_LKD[level_L, codes_BL].sum(dim=1)


def squared_distances(x_BD: Tensor, codebook_KD: Tensor) -> Tensor:
    """Squared Euclidean distances (B, K), up to a term that depends on the row alone."""
    return codebook_KD.square().sum(dim=1) - 2 * x_BD @ codebook_KD.T

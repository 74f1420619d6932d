"""Residual quantisation: codes that describe a vector coarse to fine.

B vectors, D width, L levels, K codes a level, P paths that a beam search keeps.
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
        """Quantise (B, D) for training, each level by itself, in float32 whatever the networks compute in."""
        with torch.autocast(x_BD.device.type, enabled=False):
            return self._quantise(x_BD.float())

    def _quantise(self, x_BD: Tensor) -> Quantised:
        zero_BD, none_LBD = torch.zeros_like(x_BD), x_BD.new_zeros(self.levels, *x_BD.shape)
        if not self.initialised or self.levels == 0 or len(x_BD) == 0:
            codes_BL = torch.zeros(len(x_BD), self.levels, dtype=torch.int64, device=x_BD.device)
            passed_BD = zero_BD if self.levels == 0 else x_BD
            return Quantised(codes_BL, passed_BD, none_LBD, x_BD.new_zeros(()))
        codes, residuals = [], []
        total_BD, commitment = zero_BD, x_BD.new_zeros(())
        for codebook_KD in self.codebooks_LKD:
            residuals.append((x_BD - total_BD).detach())
            codes.append(squared_distances(residuals[-1], codebook_KD).argmin(dim=1))
            total_BD = total_BD + codebook_KD[codes[-1]]
            commitment = commitment + F.mse_loss(x_BD, total_BD)
        straight_BD = x_BD + (total_BD - x_BD).detach()
        return Quantised(torch.stack(codes, dim=1), straight_BD, torch.stack(residuals), commitment)

    @torch.no_grad()
    def follow(self, x_BD: Tensor, codes_BL: Tensor) -> Quantised:
        """Quantise (B, D) by codes that are given: what those codes leave over of these vectors, level by level."""
        levels_L1 = torch.arange(self.levels, device=x_BD.device)[:, None]
        vectors_LBD = self.codebooks_LKD[levels_L1, codes_BL.T]
        before_LBD = vectors_LBD.cumsum(dim=0) - vectors_LBD
        return Quantised(codes_BL, vectors_LBD.sum(dim=0), x_BD - before_LBD, x_BD.new_zeros(()))

    @torch.no_grad()
    def encode(self, x_BD: Tensor, beam: int = 1) -> Tensor:
        """Codes (B, L) int64 of (B, D): the nearest sum of codes that a search keeping ``beam`` paths finds.

        Among tied codes the lowest; with a beam of 1, the code nearest to each level's residual, as in training.
        """
        rows_B1 = torch.arange(len(x_BD), device=x_BD.device)[:, None]
        codes_BPL = torch.zeros(len(x_BD), 1, 0, dtype=torch.int64, device=x_BD.device)
        residual_BPD = x_BD[:, None]
        for codebook_KD in self.codebooks_LKD:
            distance_BPK = squared_distances(residual_BPD, codebook_KD)
            distance_BC = (distance_BPK + residual_BPD.square().sum(dim=2, keepdim=True)).flatten(1)
            band = TIE * codebook_KD.square().sum(dim=1).max()
            chosen_BP = _lowest(distance_BC, min(beam, distance_BC.shape[1]), band)
            path_BP, code_BP = chosen_BP // len(codebook_KD), chosen_BP % len(codebook_KD)
            codes_BPL = torch.cat([codes_BPL[rows_B1, path_BP], code_BP[:, :, None]], dim=2)
            residual_BPD = residual_BPD[rows_B1, path_BP] - codebook_KD[code_BP]
        return codes_BPL[:, 0]

    def lookup(self, codes_BL: Tensor) -> Tensor:
        """The sum (B, D) of the codebook vectors that ``codes_BL`` (B, L) names."""
        level_L = torch.arange(self.levels, device=codes_BL.device)
        return self.codebooks_LKD[level_L, codes_BL].sum(dim=1)


def squared_distances(x_BD: Tensor, codebook_KD: Tensor) -> Tensor:
    """Squared Euclidean distances (…, K) of (…, D), up to a term that depends on the row alone."""
    return codebook_KD.square().sum(dim=1) - 2 * x_BD @ codebook_KD.T


def _lowest(distance_BC: Tensor, count: int, band: Tensor) -> Tensor:
    """Positions (B, count) of the smallest distances in order; of those within ``band``, the lower position first."""
    found = []
    for _ in range(count):
        tied_BC = distance_BC <= distance_BC.amin(dim=1, keepdim=True) + band
        found.append(tied_BC.to(torch.int8).argmax(dim=1, keepdim=True))
        if len(found) < count:
            distance_BC = distance_BC.scatter(1, found[-1], torch.inf)
    return torch.cat(found, dim=1)

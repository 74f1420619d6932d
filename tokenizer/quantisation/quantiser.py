"""Residual quantisation: codes that describe a vector coarse to fine.

B vectors, D width, L levels, K codes a level, P paths that a beam search keeps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.base.rounding import unit

# Two codes nearer to each other than this share of the squared scale count as tied, far above float64 rounding.
TIE = 1e-9
PATHS = 2048  # that a search holds at a time, which bounds memory


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
        return self._search(x_BD, x_BD.new_zeros(len(x_BD)), beam)[0]

    @torch.no_grad()
    def search(self, x_BD: Tensor, error_B: Tensor, beam: int = 1) -> tuple[Tensor, Tensor]:
        """The codes of :meth:`encode`, and of which rows they are sure, (B,) bool.

        A row is sure if every vector within ``error_B`` (B,) of ``x_BD`` has these codes, whatever the rounding of this
        search, and none is tied: then exact vectors in exact arithmetic have them, too.
        """
        rows = max(1, PATHS // beam)
        parts = zip(x_BD.split(rows), error_B.split(rows), strict=True)
        codes, sure = zip(*(self._search(*part, beam) for part in parts), strict=True)
        return torch.cat(codes), torch.cat(sure)

    def _search(self, x_BD: Tensor, error_B: Tensor, beam: int) -> tuple[Tensor, Tensor]:
        rows_B1 = torch.arange(len(x_BD), device=x_BD.device)[:, None]
        codes_BPL = torch.zeros(len(x_BD), 1, 0, dtype=torch.int64, device=x_BD.device)
        residual_BPD = x_BD[:, None]
        sure_B = torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device)
        u = unit(x_BD.dtype)
        for level, codebook_KD in enumerate(self.codebooks_LKD):
            distance_BPK = squared_distances(residual_BPD, codebook_KD)
            distance_BC = distance_BPK.add_(residual_BPD.square().sum(dim=2, keepdim=True)).flatten(1)
            longest2 = codebook_KD.square().sum(dim=1).max()
            kept = min(beam, distance_BC.shape[1]) if level < self.levels - 1 else 1
            chosen_BP, last_B, next_B = _lowest(distance_BC, kept, TIE * longest2)
            reach_B = residual_BPD.norm(dim=2).amax(dim=1) + longest2.sqrt()
            rounding_B = (x_BD.shape[1] + 8) * u * reach_B.square()
            # A distance, not squared, moves by no more than its vector; of one path the difference of two squared ones
            # moves by no more than the vector times twice the way between two codes, too.
            moved_B = (next_B + rounding_B).clamp(min=0).sqrt()
            if codes_BPL.shape[1] == 1:
                moved_B = torch.minimum(moved_B, longest2.sqrt())
            moved_B = moved_B.masked_fill(next_B.isinf(), 0.0)  # there is no next
            sure_B &= next_B - last_B > TIE * longest2 + 2 * rounding_B + 4 * error_B * moved_B
            path_BP, code_BP = chosen_BP // len(codebook_KD), chosen_BP % len(codebook_KD)
            codes_BPL = torch.cat([codes_BPL[rows_B1, path_BP], code_BP[:, :, None]], dim=2)
            residual_BPD = residual_BPD[rows_B1, path_BP] - codebook_KD[code_BP]
            error_B = error_B + 2 * u * reach_B
        return codes_BPL[:, 0], sure_B

    def lookup(self, codes_BL: Tensor) -> Tensor:
        """The sum (B, D) of the codebook vectors that ``codes_BL`` (B, L) names."""
        level_L = torch.arange(self.levels, device=codes_BL.device)
        return self.codebooks_LKD[level_L, codes_BL].sum(dim=1)


def squared_distances(x_BD: Tensor, codebook_KD: Tensor) -> Tensor:
    """Squared Euclidean distances (…, K) of (…, D), up to a term that depends on the row alone."""
    twice_BK = 2 * x_BD @ codebook_KD.T
    lengths_K = codebook_KD.square().sum(dim=1)
    return lengths_K - twice_BK if twice_BK.requires_grad else torch.sub(lengths_K, twice_BK, out=twice_BK)


def _lowest(distance_BC: Tensor, count: int, band: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (B, count) of the smallest distances in order; of those within ``band``, the lower position first.

    And the last distance that is among them and the first that is not, (B,) each; that is infinite if there is none.
    """
    if count == 1:  # which takes less than topk
        found_BP = _about_lowest(distance_BC)
        lowest_B1 = distance_BC.gather(1, found_BP)
        next_B = distance_BC.scatter_(1, found_BP, torch.inf).amin(dim=1)
        distance_BC.scatter_(1, found_BP, lowest_B1)
        values_BM = torch.stack([lowest_B1[:, 0], next_B], dim=1)
    else:
        values_BM, positions_BM = distance_BC.topk(min(count + 1, distance_BC.shape[1]), dim=1, largest=False)
        found_BP = positions_BM[:, :count]
    tied_B = (values_BM.diff(dim=1) <= band).any(dim=1)
    if bool(tied_B.any()):
        found_BP = found_BP.masked_scatter(tied_B[:, None], _lowest_of_tied(distance_BC[tied_B], count, band))
    next_B = values_BM[:, count] if values_BM.shape[1] > count else torch.full_like(values_BM[:, 0], torch.inf)
    return found_BP, values_BM[:, count - 1], next_B


def _about_lowest(distance_BC: Tensor) -> Tensor:
    """The position (B, 1) of the smallest distance, or of one that differs from it in its last bits alone.

    Those bits make way for the position, so that one minimum finds both; argmin alone takes longer.
    """
    integer = torch.int32 if distance_BC.dtype == torch.float32 else torch.int64
    bits = (1 << (distance_BC.shape[1] - 1).bit_length()) - 1
    position_C = torch.arange(distance_BC.shape[1], device=distance_BC.device, dtype=integer)
    packed_BC = (distance_BC.view(integer) & ~bits).bitwise_or_(position_C)
    return packed_BC.amin(dim=1, keepdim=True).bitwise_and_(bits).long()


def _lowest_of_tied(distance_BC: Tensor, count: int, band: Tensor) -> Tensor:
    found = []
    for _ in range(count):
        tied_BC = distance_BC <= distance_BC.amin(dim=1, keepdim=True) + band
        found.append(tied_BC.to(torch.int8).argmax(dim=1, keepdim=True))
        if len(found) < count:
            distance_BC = distance_BC.scatter(1, found[-1], torch.inf)
    return torch.cat(found, dim=1)

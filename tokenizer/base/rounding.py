"""How far a result in floating point may be from the exact one.

An error is the length of the vector by which a computed vector may miss the exact one, (B,), a number a row. The
roundings of a sum of n terms are taken to add up as a random walk does, √n times one of them and ``SAFETY`` on top, of
terms at their largest; the bound that no input whatever could pass, n times, would have most rows computed twice.

B vectors of a batch, I width in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SAFETY = 1.0


def unit(dtype: torch.dtype) -> float:
    """The relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def grown(terms: int) -> float:
    """How many roundings the error of a sum of products is worth."""
    return min(terms, SAFETY * terms**0.5) + 4


def spectral_norm(weight_OI: Tensor) -> float:
    """By how much a matrix can lengthen a vector."""
    weight_OI = weight_OI.detach().double()
    gram = weight_OI @ weight_OI.T if len(weight_OI) < weight_OI.shape[1] else weight_OI.T @ weight_OI
    return float(torch.linalg.eigvalsh(gram).amax().clamp(min=0).sqrt()) * (1 + 1e-9)


@dataclass(frozen=True)
class Bound:
    """What a network makes of an error: ``lipschitz`` times it, and its own by the length of its input."""

    lipschitz: float
    relative: float
    absolute: float

    def __call__(self, x_BI: Tensor, error_B: Tensor) -> Tensor:
        """The error of the network's output at ``x_BI``."""
        return self.lipschitz * error_B + self.relative * x_BI.norm(dim=1) + self.absolute


def unit_vector_error(y_BD: Tensor, error_B: Tensor) -> Tensor:
    """The error (B,) of ``normalize(y_BD)``: |y/‖y‖ - ŷ/‖ŷ‖| is at most 2 |y - ŷ| / (‖y‖ + ‖ŷ‖); infinite where ``y``
    could be zero."""
    length_B = y_BD.norm(dim=1) - error_B
    rounded = grown(y_BD.shape[1]) * unit(y_BD.dtype)
    return torch.where(length_B > 0, error_B / length_B + rounded, torch.inf)

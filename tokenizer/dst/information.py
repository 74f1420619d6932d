"""Mutual-information minimisation: two penalties on what one part of an ID tells of another.

B items, X and Y widths of the two parts.
"""

import torch
from torch import Tensor, nn


class VCLUB(nn.Module):
    """A Gaussian network q(y | x), and the bound on I(x; y) that it gives (Cheng et al. 2020).

    The network is fitted by :meth:`mismatch` in steps of its own; the tokenizer descends :meth:`bound`.
    ``y`` is divided by its spread first, so that shrinking a part does not pass for hiding it.
    """

    def __init__(self, width_x: int, width_y: int, hidden: int = 128) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(width_x, hidden), nn.GELU(), nn.Linear(hidden, width_y))
        self.log_variance = nn.Sequential(nn.Linear(width_x, hidden), nn.GELU(), nn.Linear(hidden, width_y), nn.Tanh())

    def mismatch(self, x_BX: Tensor, y_BY: Tensor) -> Tensor:
        """Mean negative log-likelihood of y given x over the batch, a scalar in nats, up to a constant."""
        y_BY, mean_BY, log_variance_BY = self._standardised(y_BY), self.mean(x_BX), self.log_variance(x_BX)
        return ((y_BY - mean_BY).square() / log_variance_BY.exp() + log_variance_BY).sum(dim=1).mean() / 2

    def bound(self, x_BX: Tensor, y_BY: Tensor) -> Tensor:
        """``E log q(y|x) − E log q(y'|x)`` over all pairs of the batch: a scalar in nats, not below zero.

        The mean over all y' is taken in closed form from their first two moments, which spares the variance of drawn
        negatives. The floor at zero keeps an ill-fitted network from pulling the bound towards minus infinity.
        """
        y_BY, mean_BY, variance_BY = self._standardised(y_BY), self.mean(x_BX), self.log_variance(x_BX).exp()
        own_BY = (y_BY - mean_BY).square()
        other_BY = (y_BY.mean(dim=0) - mean_BY).square() + y_BY.var(dim=0, unbiased=False)
        return ((other_BY - own_BY) / variance_BY).sum(dim=1).mean().clamp(min=0) / 2

    @staticmethod
    def _standardised(y_BY: Tensor) -> Tensor:
        with torch.no_grad():
            spread = (y_BY - y_BY.mean(dim=0)).square().mean().sqrt().clamp(min=1e-6)
        return y_BY / spread


def cross_covariance(x_BX: Tensor, y_BY: Tensor) -> Tensor:
    """Sum of the squared correlations between two parts' components, less what chance gives, over the width of x: a
    scalar, not below zero.

    Departure from the paper: vCLUB's networks lag behind the tokenizer; linear dependence, which is what a probe or a
    ranker's first layer picks up, needs no network and is penalised at once.
    """
    x_BX, y_BY = ((part - part.mean(dim=0)) / (part.std(dim=0) + 1e-3) for part in (x_BX, y_BY))
    correlation_XY = x_BX.T @ y_BY / len(x_BX)
    chance = correlation_XY.numel() / len(x_BX)
    return (correlation_XY.square().sum() - chance).clamp(min=0) / x_BX.shape[1]

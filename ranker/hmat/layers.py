"""What the HMAT and the baselines share: places of items, feedback, parts of blocks, the click head.

Letters: B windows, N items, H heads, D head, E = H·D width.
"""

import torch
from torch import Tensor, nn

from ranker.config import RankerConfig

FEEDBACK_STD = 1.0
LARGEST = 4.0  # standard deviations of graded feedback; what lies beyond counts as this


def places(items_BN: Tensor, seen_BN: Tensor | None) -> Tensor:
    """Int64 ``(B, N)``: after how many items each stands; without ``seen_BN`` after all that come before it."""
    return torch.arange(items_BN.shape[1], device=items_BN.device).expand_as(items_BN) if seen_BN is None else seen_BN


class FeedbackEmbedding(nn.Embedding):
    """Two rows, not clicked and clicked, as long as what they are added to: the memories are normalised.

    Short ones are learned late: the planted taste of the tests then takes twice the passes. If ``graded``, a learned
    vector times the standardised graded feedback (a rating, a dwell time) is added; where there is none, nothing.
    """

    def __init__(self, dim: int, *, graded: bool = False) -> None:
        super().__init__(2, dim)
        nn.init.normal_(self.weight, std=FEEDBACK_STD)
        self.graded_E = nn.Parameter(torch.zeros(dim)) if graded else None
        self.mean: Tensor
        self.deviation: Tensor
        if graded:
            self.register_buffer("mean", torch.zeros(()))
            self.register_buffer("deviation", torch.ones(()))

    def standardise(self, mean: float, deviation: float) -> None:
        """Say of which mean and deviation the graded feedback is in training; the weights keep both."""
        self.mean.fill_(mean)
        self.deviation.fill_(deviation if deviation > 0 else 1.0)

    def forward(self, labels_BN: Tensor, graded_BN: Tensor | None = None) -> Tensor:
        """``(B, N, E)`` of 0/1 labels, and float32 graded feedback, NaN where there is none."""
        feedback_BNE = super().forward(labels_BN)
        if self.graded_E is None:
            return feedback_BNE
        if graded_BN is None:
            graded_BN = torch.full(labels_BN.shape, torch.nan, device=labels_BN.device)
        standard_BN = ((graded_BN - self.mean) / self.deviation).clamp(-LARGEST, LARGEST).nan_to_num(0.0)
        return feedback_BNE + standard_BN[..., None] * self.graded_E


class FeedForward(nn.Sequential):
    """Normalise, widen fourfold, return."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class AttentionBlock(nn.Module):
    """The parts of attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.feed_forward = FeedForward(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def by_head(self, x: Tensor) -> Tensor:
        """``(…, E)`` → ``(…, H, D)``."""
        return x.unflatten(-1, (self.heads, -1))


class ClickHead(nn.Sequential):
    """``(…, E)`` → one logit ``(…, 1)``."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

"""What the HMAT and the flat baseline share: feedback, the feed-forward sub-layer, the click head.

Letters: E width.
"""

from torch import nn

FEEDBACK_STD = 1.0


class FeedbackEmbedding(nn.Embedding):
    """Two rows, not clicked and clicked, as long as what they are added to: the memories are normalised.

    Short ones are learned late: the planted taste of the tests then takes twice the passes.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2, dim)
        nn.init.normal_(self.weight, std=FEEDBACK_STD)


class FeedForward(nn.Sequential):
    """Normalise, widen fourfold, return."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class ClickHead(nn.Sequential):
    """``(…, E)`` → one logit ``(…, 1)``."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

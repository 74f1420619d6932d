"""What the HMAT and the flat baseline share: the code tables, the feed-forward sub-layer, the click head.

Letters: B windows, N items, T semantic tokens of an item, E width.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from schemas.semantic_id import Layout

EMBEDDING_STD = 0.1
FEEDBACK_STD = 1.0


class Ranker(Protocol):
    """A model that gives every impression its click logit."""

    def __call__(self, tokens_BNT: Tensor, labels_BN: Tensor) -> Tensor:
        """Logits ``(B, N)`` of int64 codes and 0/1 feedback; logit i depends on labels before i only."""
        ...


class CodeEmbedding(nn.Module):
    """One table a slot over its codes and the absent code, ``(B, N, T)`` → ``(B, N, T, E)``."""

    def __init__(self, layout: Layout, dim: int) -> None:
        super().__init__()
        rows = layout.codebook_size + 1
        self.tables = nn.Embedding(layout.slots * rows, dim)
        nn.init.normal_(self.tables.weight, std=EMBEDDING_STD)
        self.offset_T: Tensor
        self.register_buffer("offset_T", torch.arange(layout.slots) * rows, persistent=False)

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """The vectors of the codes."""
        return self.tables(tokens_BNT + self.offset_T)


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
        super().__init__(nn.RMSNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class ClickHead(nn.Sequential):
    """``(…, E)`` → one logit ``(…, 1)``."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.RMSNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

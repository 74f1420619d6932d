"""What the rankers with one vector an item share: an item as a candidate, and as an event of the past.

Letters: B windows, N items, T semantic tokens, E width.
"""

import torch
from torch import Tensor, nn

from ranker.config import RankerConfig
from ranker.hmat.items import EMBEDDING_STD, ItemEmbedding
from ranker.hmat.layers import FeedbackEmbedding
from schemas.semantic_id import Layout


class WholeItems(nn.Module):
    """A ranker's first part: all that is known of an item summed up and normalised, with its feedback and without."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.items = ItemEmbedding(config, layout, decoded_CV)
        self.item_E = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.item_norm = nn.LayerNorm(config.dim)
        self.feedback = FeedbackEmbedding(config.dim, graded=config.feedback)

    def embed(
        self, tokens_BNT: Tensor, items_BN: Tensor, labels_BN: Tensor, graded_BN: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Items as candidates, which say nothing of their feedback, and as events of the past, ``(B, N, E)`` each."""
        x_BNTE, whole_BNE = self.items(tokens_BNT, items_BN)
        candidate_BNE = self.item_norm(self.item_E + x_BNTE.sum(2) + whole_BNE)
        return candidate_BNE, candidate_BNE + self.feedback(labels_BN, graded_BN)


def places(items_BN: Tensor, seen_BN: Tensor | None) -> Tensor:
    """Int64 ``(B, N)``: after how many items each stands; without ``seen_BN`` after all that come before it."""
    return torch.arange(items_BN.shape[1], device=items_BN.device).expand_as(items_BN) if seen_BN is None else seen_BN


def past_of(seen_BN: Tensor) -> Tensor:
    """Bool ``(B, N, N)``: item i sees item j if that is one of the first ``seen_BN[:, i]``."""
    return torch.arange(seen_BN.shape[1], device=seen_BN.device) < seen_BN[..., None]

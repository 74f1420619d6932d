"""What the rankers with one vector an item share: an item as a candidate, and as an event of the past.

Letters: B windows, N items, T semantic tokens, E width.
"""

import torch
from torch import Tensor, nn

from ranker.config import RankerConfig
from ranker.hmat.items import EMBEDDING_STD, ItemEmbedding
from ranker.hmat.layers import FeedbackEmbedding, places
from schemas.semantic_id import Layout


class WholeItems(nn.Module):
    """Click logits of a batch of windows, by what :meth:`rank` makes of items that are each one vector: all that is
    known of an item summed up and normalised, with its feedback and without."""

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

    def forward(
        self,
        tokens_BNT: Tensor,
        items_BN: Tensor,
        labels_BN: Tensor,
        graded_BN: Tensor | None = None,
        seen_BN: Tensor | None = None,
        fold_B: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(B, N)``, arguments as of :meth:`ranker.hmat.model.HMAT.forward`."""
        candidate_BNE, event_BNE = self.embed(tokens_BNT, items_BN, labels_BN, graded_BN)
        return self.rank(candidate_BNE, event_BNE, places(items_BN, seen_BN))

    def rank(self, candidate_BNE: Tensor, event_BNE: Tensor, seen_BN: Tensor) -> Tensor:
        """Logits ``(B, N)`` of the candidates, each by no more than the first ``seen_BN`` events."""
        raise NotImplementedError

    @property
    def again(self) -> bool:
        """Whether training is to keep nothing of a layer, but compute it again backwards."""
        return self.training and self.config.recompute is not None

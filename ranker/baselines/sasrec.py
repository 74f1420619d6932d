"""SASRec (Kang and McAuley 2018, arXiv 1808.09781) for clicks: causal self-attention over items, one position each.

The history is a learned start and then the events: an item's vector, its feedback, and a learned vector of its place.
Self-attention makes them states of the user, each of what came before it and of itself. SASRec multiplies the last
state with every candidate; here the candidate, of whose feedback nothing is known, asks all the states that it may see
in one more block, since the last of several events of one time knows nothing of the others.

Letters: B windows, N items, M = N + 1 places of the history (its start is the first), H heads, D head, E = H·D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.baselines.whole_items import WholeItems, past_of, places
from ranker.config import RankerConfig
from ranker.hmat.items import EMBEDDING_STD
from ranker.hmat.layers import ClickHead, FeedForward
from ranker.hmat.recompute import in_stretches
from schemas.semantic_id import Layout


class SASRecBlock(nn.Module):
    """Attention and feed-forward, each normalised before and added to what asks."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.feed_forward = FeedForward(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, asking_BNE: Tensor, states_BME: Tensor, visible_BNM: Tensor) -> Tensor:
        """``(B, N, E)``: ``asking_BNE`` after it has read the states that it sees."""
        q_BHND = self._heads(self.query(self.norm(asking_BNE)))
        k_BHMD, v_BHMD = (self._heads(x) for x in self.key_value(self.norm(states_BME)).chunk(2, -1))
        read_BHND = F.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHMD, attn_mask=visible_BNM[:, None])
        x_BNE = asking_BNE + self.dropout(self.out(read_BHND.transpose(1, 2).flatten(2)))
        return x_BNE + self.dropout(self.feed_forward(x_BNE))

    def _heads(self, x_BNE: Tensor) -> Tensor:
        return x_BNE.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SASRec(WholeItems):
    """Click logits of a batch of windows."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None = None) -> None:
        super().__init__(config, layout, decoded_CV)
        self.start_E = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.place = nn.Embedding(config.max_items + 1, config.dim)
        nn.init.normal_(self.place.weight, std=EMBEDDING_STD)
        self.blocks = nn.ModuleList(SASRecBlock(config) for _ in range(config.layers))
        self.read = SASRecBlock(config)
        self.head = ClickHead(config.dim)

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
        seen_BN = places(items_BN, seen_BN)
        place_BNE = self.place(seen_BN)
        start_B1E = self.start_E.expand(len(event_BNE), 1, -1)
        x_BME = torch.cat([start_B1E, event_BNE + place_BNE], 1)
        visible_BNM = F.pad(past_of(seen_BN), (1, 0), value=True)
        own_MM = torch.eye(x_BME.shape[1], dtype=torch.bool, device=x_BME.device)
        history_BMM = F.pad(visible_BNM, (0, 0, 1, 0)) | own_MM
        for block in self.blocks:
            x_BME = self._whole(block, x_BME, x_BME, history_BMM)
        return self.head(self._whole(self.read, candidate_BNE + place_BNE, x_BME, visible_BNM))[..., 0]

    def _whole(self, block: nn.Module, asking_BNE: Tensor, states_BME: Tensor, visible_BNM: Tensor) -> Tensor:
        """A block, if training is to keep nothing of it, to be computed again."""
        length = asking_BNE.shape[1]
        recompute = length if self.training and self.config.recompute else None
        return in_stretches(lambda *_: block(asking_BNE, states_BME, visible_BNM), length, recompute)

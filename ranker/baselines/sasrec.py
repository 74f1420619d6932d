"""SASRec (Kang and McAuley 2018, arXiv 1808.09781) for clicks: causal self-attention over items, one position each.

The history is a learned start and then the events: an item's vector, its feedback, and a learned vector of its place.
Self-attention makes them states of the user, each of what came before it and of itself. SASRec multiplies the last
state with every candidate; here the candidate, of whose feedback nothing is known, asks all the states that it may see
in one more block, since the last of several events of one time knows nothing of the others.

Letters: B windows, N items, M = N + 1 places of the history (its start is the first), H heads, D head, E = H·D width.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.baselines.visibility import past_of
from ranker.baselines.whole_items import WholeItems
from ranker.config import RankerConfig
from ranker.hmat.items import EMBEDDING_STD
from ranker.hmat.layers import AttentionBlock, ClickHead
from ranker.hmat.recompute import computed
from schemas.semantic_id import Layout


class SASRecBlock(AttentionBlock):
    """Attention and feed-forward, each added to what asks."""

    def forward(self, asking_BNE: Tensor, states_BME: Tensor, visible_BNM: Tensor) -> Tensor:
        """``(B, N, E)``: ``asking_BNE`` after it has read the states that it sees."""
        q_BNHD = self.by_head(self.query(self.norm(asking_BNE)))
        k_BMHD, v_BMHD = (self.by_head(x) for x in self.key_value(self.norm(states_BME)).chunk(2, -1))
        q_BHND, k_BHMD, v_BHMD = (x.transpose(1, 2) for x in (q_BNHD, k_BMHD, v_BMHD))
        read_BHND = F.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHMD, attn_mask=visible_BNM[:, None])
        x_BNE = asking_BNE + self.dropout(self.out(read_BHND.transpose(1, 2).flatten(2)))
        return x_BNE + self.dropout(self.feed_forward(x_BNE))


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

    def rank(self, candidate_BNE: Tensor, event_BNE: Tensor, seen_BN: Tensor) -> Tensor:
        """See :meth:`ranker.baselines.whole_items.WholeItems.rank`."""
        place_BNE = self.place(seen_BN)
        start_B1E = self.start_E.expand(len(event_BNE), 1, -1)
        x_BME = torch.cat([start_B1E, event_BNE + place_BNE], 1)
        visible_BNM = F.pad(past_of(seen_BN), (1, 0), value=True)
        own_MM = torch.eye(x_BME.shape[1], dtype=torch.bool, device=x_BME.device)
        history_BMM = F.pad(visible_BNM, (0, 0, 1, 0)) | own_MM
        for block in self.blocks:
            x_BME = computed(partial(block, x_BME, x_BME, history_BMM), again=self.again)
        read = partial(self.read, candidate_BNE + place_BNE, x_BME, visible_BNM)
        logits_BN1: Tensor = self.head(computed(read, again=self.again))
        return logits_BN1[..., 0]

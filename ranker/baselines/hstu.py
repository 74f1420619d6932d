"""HSTU (Zhai et al. 2024, arXiv 2402.17152): attention without softmax, a SiLU of every score, and a gate.

As in the paper's ranking form a window is one causal stream in which items and what was done with them take turns. The
logit of an item is read at its first position, before its feedback. The second position is the item with its
feedback. A layer makes gates u, values v, queries q and keys k by one matrix and a SiLU, and with a learned bias of the
distance in items and of the two positions' kinds

    x_n + W (LN(Σ_m SiLU(q_n · k_m + bias) v_m) ⊙ u_n)

The paper's constant divisor of the sum is left to the norm. Its bias of times is left out: windows bring order alone.

Letters: B windows, N items, S = 2 positions of an item, L = N·S, H heads, D head, E = H·D width.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.baselines.visibility import visible_positions
from ranker.baselines.whole_items import WholeItems
from ranker.config import RankerConfig
from ranker.hmat.layers import ClickHead
from ranker.hmat.recompute import computed
from schemas.semantic_id import Layout

POSITIONS = 2  # of an item: as a candidate, and as an event


class HSTUBlock(nn.Module):
    """One layer of sequential transduction units."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.dim)
        self.mix = nn.Linear(config.dim, 4 * config.dim)
        self.distance = nn.Embedding(config.max_items + 1, config.heads)
        nn.init.zeros_(self.distance.weight)
        self.kinds_HSS = nn.Parameter(torch.zeros(config.heads, POSITIONS, POSITIONS))
        self.read_norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLE: Tensor, distance_BNN: Tensor, visible_BLL: Tensor) -> Tensor:
        """``(B, L, E)``, updated; ``distance_BNN`` is in items, int64."""
        u_BLE, v_BLE, q_BLE, k_BLE = F.silu(self.mix(self.norm(x_BLE))).chunk(4, -1)
        q_BHLD, k_BHLD, v_BHLD = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q_BLE, k_BLE, v_BLE))
        weight_BHLL = F.silu(q_BHLD @ k_BHLD.transpose(-1, -2) + self._bias(distance_BNN))
        read_BHLD = weight_BHLL.masked_fill(~visible_BLL[:, None], 0.0) @ v_BHLD
        read_BLE = self.read_norm(read_BHLD.transpose(1, 2).flatten(2))
        return x_BLE + self.dropout(self.out(read_BLE * u_BLE))

    def _bias(self, distance_BNN: Tensor) -> Tensor:
        """``(B, H, L, L)``."""
        distance_BHN1N1 = self.distance(distance_BNN).movedim(-1, 1)[:, :, :, None, :, None]
        return (distance_BHN1N1 + self.kinds_HSS[:, None, :, None, :]).flatten(4, 5).flatten(2, 3)


class HSTU(WholeItems):
    """Click logits of a batch of windows. Time and memory are quadratic in the items."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None = None) -> None:
        super().__init__(config, layout, decoded_CV)
        self.blocks = nn.ModuleList(HSTUBlock(config) for _ in range(config.layers))
        self.head = ClickHead(config.dim)

    def rank(self, candidate_BNE: Tensor, event_BNE: Tensor, seen_BN: Tensor) -> Tensor:
        """See :meth:`ranker.baselines.whole_items.WholeItems.rank`."""
        x_BLE = torch.stack([candidate_BNE, event_BNE], 2).flatten(1, 2)
        distance_BNN = (seen_BN[:, :, None] - seen_BN[:, None, :]).clamp(min=0)  # what lies ahead is not seen
        visible_BLL = visible_positions(seen_BN, POSITIONS)
        for block in self.blocks:
            x_BLE = computed(partial(block, x_BLE, distance_BNN, visible_BLL), again=self.again)
        logits_BN1: Tensor = self.head(x_BLE[:, ::POSITIONS])
        return logits_BN1[..., 0]

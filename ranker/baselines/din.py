"""DIN (Zhou et al. 2018, arXiv 1706.06978): a candidate looks through the history for what it has to do with it.

The activation unit, a small network, gives every event of the past its weight for a candidate,

    w_cn = a · φ(W [q_c, k_n, q_c − k_n, q_c ∗ k_n] + b) + a₀

and the user is Σ_n w_cn k_n, without a softmax, so that much to go by stays more than little. A network of candidate,
user and their product gives the logit. φ is SiLU, which the paper's Dice is but for its batch statistics. Events have
no order. ``layers`` and ``heads`` mean nothing here.

Since W is linear, q − k needs no columns of its own: W [q, k, q − k, q ∗ k] = W₁ q + W₂ k + W₃ (q ∗ k). Candidates are
done in stretches, of which nothing is kept for the backward pass, so memory is bounded whatever the window.

Letters: B windows, N items, C candidates of a stretch, U hidden units, E width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.baselines.visibility import past_of
from ranker.baselines.whole_items import WholeItems
from ranker.config import RankerConfig
from ranker.hmat.recompute import in_stretches
from schemas.semantic_id import Layout

STRETCH = 64
UNITS = 16


class ActivationUnit(nn.Module):
    """How much each event of the past has to do with each candidate; at first nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.candidate = nn.Linear(dim, UNITS)
        self.event = nn.Linear(dim, UNITS, bias=False)
        self.product_UE = nn.Parameter(torch.randn(UNITS, dim) * dim**-0.5)
        self.weight = nn.Linear(UNITS, 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    def forward(self, candidate_BCE: Tensor, event_BNE: Tensor) -> Tensor:
        """``(B, C, N)``."""
        asking_BCUE = candidate_BCE[:, :, None] * self.product_UE
        product_BCUN = (asking_BCUE.flatten(1, 2) @ event_BNE.transpose(1, 2)).unflatten(1, asking_BCUE.shape[1:3])
        event_B1UN = self.event(event_BNE).transpose(1, 2)[:, None]
        hidden_BCUN = F.silu(product_BCUN + self.candidate(candidate_BCE)[..., None] + event_B1UN)
        weight_BC1N = self.weight.weight @ hidden_BCUN + self.weight.bias
        return weight_BC1N[:, :, 0]


class DIN(WholeItems):
    """Click logits of a batch of windows."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None = None) -> None:
        super().__init__(config, layout, decoded_CV)
        self.activation = ActivationUnit(config.dim)
        self.head = nn.Sequential(
            nn.Linear(3 * config.dim, 4 * config.dim),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * config.dim, config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, 1),
        )

    def rank(self, candidate_BNE: Tensor, event_BNE: Tensor, seen_BN: Tensor) -> Tensor:
        """See :meth:`ranker.baselines.whole_items.WholeItems.rank`."""
        past_BNN = past_of(seen_BN)

        def users(start: int, stop: int) -> Tensor:
            weight_BCN = self.activation(candidate_BNE[:, start:stop], event_BNE)
            return weight_BCN.masked_fill(~past_BNN[:, start:stop], 0.0) @ event_BNE

        user_BNE = in_stretches(users, seen_BN.shape[1], self.config.recompute or STRETCH)
        logits_BN1: Tensor = self.head(torch.cat([candidate_BNE, user_BNE, candidate_BNE * user_BNE], -1))
        return logits_BN1[..., 0]

"""The Hierarchical Memory-Anchor Transformer (HMAT).

An item is its T semantic tokens and one anchor, S = T+1 slots, the anchor last. The anchor starts from a learned
vector plus the sum of its item's tokens, and its output gives the click logit. Later items see of an item only its
memory: the anchor's key and value plus a projection of the item's feedback. An item's own feedback is thus
never visible to itself, and all positions train at once.

Letters: B windows, N items, T semantic tokens, S = T+1 slots, Q the slots that query (S or the anchor alone),
H heads, D head, E = H·D width.
"""

import torch
from torch import Tensor, nn

from ranker.attention import shift_memory
from ranker.config import RankerConfig
from ranker.flash import memory_anchor_attention
from ranker.layers import EMBEDDING_STD, ClickHead, CodeEmbedding, FeedbackEmbedding, FeedForward
from ranker.rotary import hierarchical_rotation, rotate
from schemas.semantic_id import Layout


class MemoryAnchorAttention(nn.Module):
    """Projections around :func:`ranker.flash.memory_anchor_attention`, with the null memory."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.null_key_HD = nn.Parameter(torch.zeros(heads, dim // heads))
        self.null_value_HD = nn.Parameter(torch.zeros(heads, dim // heads))

    def forward(self, x_BNSE: Tensor, memory_BNE: Tensor, rotation_NSF: Tensor, queries: int) -> Tensor:
        """``(B, N, Q, E)``: what the last ``queries`` slots of every item read."""
        first = x_BNSE.shape[2] - queries
        q_BNQHD = rotate(self._heads(self.query(x_BNSE[:, :, first:])), rotation_NSF[:, first:])
        k_BNSHD, v_BNSHD = (self._heads(x) for x in self.key_value(x_BNSE).chunk(2, -1))
        k_BNSHD = rotate(k_BNSHD, rotation_NSF)
        past_k_BHND, past_v_BHND = self._past(memory_BNE, rotation_NSF[:, -1])
        q_BHNQD, k_BHNSD, v_BHNSD = (x.movedim(-2, 1) for x in (q_BNQHD, k_BNSHD, v_BNSHD))
        read_BHNQD = memory_anchor_attention(q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHND, past_v_BHND)
        return self.out(read_BHNQD.movedim(1, -2).flatten(3))

    def _past(self, memory_BNE: Tensor, rotation_NF: Tensor) -> tuple[Tensor, Tensor]:
        k_BNHD, v_BNHD = (self._heads(x) for x in self.key_value(memory_BNE).chunk(2, -1))
        k_BHND, v_BHND = rotate(k_BNHD, rotation_NF).transpose(1, 2), v_BNHD.transpose(1, 2)
        return shift_memory(self.null_key_HD, k_BHND), shift_memory(self.null_value_HD, v_BHND)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.dim)
        self.attention = MemoryAnchorAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BNSE: Tensor, feedback_BNE: Tensor, rotation_NSF: Tensor, queries: int) -> Tensor:
        """``(B, N, Q, E)``: the last ``queries`` slots, updated."""
        normed_BNSE = self.norm(x_BNSE)
        memory_BNE = normed_BNSE[:, :, -1] + feedback_BNE
        x_BNQE = x_BNSE[:, :, x_BNSE.shape[2] - queries :]
        x_BNQE = x_BNQE + self.dropout(self.attention(normed_BNSE, memory_BNE, rotation_NSF, queries))
        return x_BNQE + self.dropout(self.feed_forward(x_BNQE))


class HMAT(nn.Module):
    """Click logits of a batch of windows."""

    def __init__(self, config: RankerConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.codes = CodeEmbedding(layout, config.dim)
        self.anchor_E = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.feedback = FeedbackEmbedding(config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = ClickHead(config.dim)

    def forward(self, tokens_BNT: Tensor, labels_BN: Tensor) -> Tensor:
        """Logits ``(B, N)`` of int64 codes and 0/1 feedback; logit i depends on labels before i only."""
        x_BNSE = self.embed(tokens_BNT)
        feedback_BNE = self.feedback(labels_BN)
        items, slots = x_BNSE.shape[1:3]
        head = self.config.dim // self.config.heads
        rotation_NSF = hierarchical_rotation(items, slots, head, self.config.rope_base, x_BNSE.device)
        *inner, last = self.blocks
        for block in inner:
            x_BNSE = block(x_BNSE, feedback_BNE, rotation_NSF, queries=slots)
        x_BN1E = last(x_BNSE, feedback_BNE, rotation_NSF, queries=1)  # only the anchor is read
        return self.head(x_BN1E)[:, :, 0, 0]

    def embed(self, tokens_BNT: Tensor) -> Tensor:
        """Slots of every item, ``(B, N, S, E)``, the anchor last."""
        x_BNTE = self.codes(tokens_BNT)
        anchor_BN1E = self.anchor_E + x_BNTE.sum(2, keepdim=True)
        return torch.cat([x_BNTE, anchor_BN1E], 2)

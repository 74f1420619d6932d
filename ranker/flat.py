"""The flat baseline: an item's tokens and then its feedback, all items as one stream under full causal attention.

Same tables, sub-layers and head as the HMAT, plain rotary positions. The logit of an item is read at its last
semantic token, which sees the item and the past but not the item's own feedback.

Letters: B windows, N items, T semantic tokens, S = T+1 stream positions of an item, L = N·S, H heads, D head,
E = H·D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.config import RankerConfig
from ranker.layers import ClickHead, CodeEmbedding, FeedbackEmbedding, FeedForward
from ranker.rotary import plain_rotation, rotate
from schemas.semantic_id import Layout


class FlatBlock(nn.Module):
    """Causal self-attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.RMSNorm(config.dim)
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.feed_forward = FeedForward(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLE: Tensor, rotation_LF: Tensor) -> Tensor:
        """``(B, L, E)``: the stream, updated."""
        qkv = self.query_key_value(self.norm(x_BLE)).chunk(3, -1)
        q_BLHD, k_BLHD, v_BLHD = (x.unflatten(-1, (self.heads, -1)) for x in qkv)
        q_BLHD, k_BLHD = rotate(q_BLHD, rotation_LF), rotate(k_BLHD, rotation_LF)
        q_BHLD, k_BHLD, v_BHLD = (x.transpose(1, 2) for x in (q_BLHD, k_BLHD, v_BLHD))
        read_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD, is_causal=True)
        x_BLE = x_BLE + self.dropout(self.out(read_BHLD.transpose(1, 2).flatten(2)))
        return x_BLE + self.dropout(self.feed_forward(x_BLE))


class FlatTransformer(nn.Module):
    """Click logits of a batch of windows."""

    def __init__(self, config: RankerConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.codes = CodeEmbedding(layout, config.dim)
        self.feedback = FeedbackEmbedding(config.dim)
        self.blocks = nn.ModuleList(FlatBlock(config) for _ in range(config.layers))
        self.head = ClickHead(config.dim)

    def forward(self, tokens_BNT: Tensor, labels_BN: Tensor) -> Tensor:
        """Logits ``(B, N)`` of int64 codes and 0/1 feedback; logit i depends on labels before i only."""
        x_BNSE = torch.cat([self.codes(tokens_BNT), self.feedback(labels_BN)[:, :, None]], 2)
        items, slots = x_BNSE.shape[1:3]
        x_BLE = x_BNSE.flatten(1, 2)
        head = self.config.dim // self.config.heads
        rotation_LF = plain_rotation(items * slots, head, self.config.rope_base, x_BLE.device)
        for block in self.blocks:
            x_BLE = block(x_BLE, rotation_LF)
        last_token_BNE = x_BLE.unflatten(1, (items, slots))[:, :, -2]
        return self.head(last_token_BNE)[..., 0]

"""The flat baseline: all tokens of all items as one causal stream.

Same tables, sub-layers and head as the HMAT. An item is a prediction token and then its tokens: its codes, and one
more if more is known of it (its ID, decoded vectors). The prediction token starts as the HMAT's anchor does, from a
learned vector and all that is known of the item. It sees all details of the past and gives the logit. The item's own
tokens come after it and carry the item's feedback, every one of them, so that later items see each detail with what
was done about it, and no logit sees its own. Positions are rotated by item; which token of the item one is, a learned
vector of the slot says. Items of one time stand at one place of the stream and do not see each other.

Letters: B windows, N items, T semantic tokens, S stream positions of an item (the prediction token is the first),
L = N·S, Q positions that query (L, or N in the last layer), H heads, D head, E = H·D width.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.baselines.visibility import visible_positions
from ranker.config import RankerConfig
from ranker.hmat.items import EMBEDDING_STD, ItemEmbedding
from ranker.hmat.layers import AttentionBlock, ClickHead, FeedbackEmbedding, places
from ranker.hmat.recompute import computed, in_stretches
from ranker.hmat.rotary import plain_rotation, rotate
from schemas.semantic_id import Layout


class FlatBlock(AttentionBlock):
    """Causal self-attention and feed-forward."""

    def forward(
        self,
        x_BLE: Tensor,
        rotation_LF: Tensor,
        read_Q: Tensor | None = None,
        recompute: int | None = None,
        visible_BLL: Tensor | None = None,
    ) -> Tensor:
        """``(B, Q, E)``: the stream, or its positions ``read_Q`` alone, updated. Where it is to be computed again, the
        feed-forward sub-layer is in stretches of ``recompute`` positions, attention always whole. A position sees what
        bool ``visible_BLL`` shows, else all before it."""
        attend = partial(self._attend, x_BLE, rotation_LF, read_Q, visible_BLL)
        x_BQE = computed(attend, again=recompute is not None)

        def feed_forward(start: int, stop: int) -> Tensor:
            return x_BQE[:, start:stop] + self.dropout(self.feed_forward(x_BQE[:, start:stop]))

        return in_stretches(feed_forward, x_BQE.shape[1], recompute)

    def _attend(self, x_BLE: Tensor, rotation_LF: Tensor, read_Q: Tensor | None, visible_BLL: Tensor | None) -> Tensor:
        normed_BLE = self.norm(x_BLE)
        k_BLHD, v_BLHD = (self.by_head(x) for x in self.key_value(normed_BLE).chunk(2, -1))
        visible, rotation_QF = None if visible_BLL is None else visible_BLL[:, None], rotation_LF
        if read_Q is not None:
            causal_QL = torch.arange(x_BLE.shape[1], device=read_Q.device) <= read_Q[:, None]
            visible = causal_QL if visible is None else visible[:, :, read_Q]
            x_BLE, normed_BLE, rotation_QF = x_BLE[:, read_Q], normed_BLE[:, read_Q], rotation_LF[..., read_Q, :]
        q_BQHD = rotate(self.by_head(self.query(normed_BLE)), rotation_QF)
        q_BHQD, k_BHLD, v_BHLD = (x.transpose(1, 2) for x in (q_BQHD, rotate(k_BLHD, rotation_LF), v_BLHD))
        read_BHQD = F.scaled_dot_product_attention(q_BHQD, k_BHLD, v_BHLD, attn_mask=visible, is_causal=visible is None)
        return x_BLE + self.dropout(self.out(read_BHQD.transpose(1, 2).flatten(2)))


class FlatTransformer(nn.Module):
    """Click logits of a batch of windows."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.items = ItemEmbedding(config, layout, decoded_CV)
        slots = 1 + layout.slots * config.codes + (not self.items.tokens_alone)
        self.slot_SE = nn.Parameter(torch.randn(slots, config.dim) * EMBEDDING_STD)
        self.norm = nn.LayerNorm(config.dim)
        self.feedback = FeedbackEmbedding(config.dim, graded=config.feedback)
        self.blocks = nn.ModuleList(FlatBlock(config) for _ in range(config.layers))
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
        """Logits ``(B, N)``, arguments as of :meth:`ranker.hmat.model.HMAT.forward`. With ``seen_BN`` it attends under
        a mask, in memory quadratic in the tokens."""
        x_BLE, slots = self._stream(tokens_BNT, items_BN, self.feedback(labels_BN, graded_BN))
        items, head = items_BN.shape[1], self.config.dim // self.config.heads
        rotation_NF = plain_rotation(items + 1, head, self.config.rope_base, x_BLE.device)
        place_BN = places(items_BN[:1], None) if seen_BN is None else seen_BN
        rotation_LF = rotation_NF[place_BN].repeat_interleave(slots, 1)
        visible_BLL = None if seen_BN is None else visible_positions(seen_BN, slots)
        recompute = self.config.recompute * slots if self.training and self.config.recompute else None
        *inner, last = self.blocks
        for block in inner:
            x_BLE = block(x_BLE, rotation_LF, recompute=recompute, visible_BLL=visible_BLL)
        predicting_N = torch.arange(items, device=x_BLE.device) * slots
        read_BNE = last(x_BLE, rotation_LF, predicting_N, recompute, visible_BLL)  # nothing else is read
        return self.head(read_BNE)[..., 0]

    def _stream(self, tokens_BNT: Tensor, items_BN: Tensor, feedback_BNE: Tensor) -> tuple[Tensor, int]:
        """``(B, L, E)`` and S: the tokens of all items in order, with their feedback but for the prediction tokens."""
        x_BNTE, whole_BNE = self.items(tokens_BNT, items_BN)
        whole = [] if self.items.tokens_alone else [whole_BNE.unsqueeze(2)]
        known_BNTE = torch.cat([x_BNTE, *whole], 2)
        x_BNSE = self.norm(torch.cat([known_BNTE.sum(2, keepdim=True), known_BNTE], 2) + self.slot_SE)
        x_BNSE = torch.cat([x_BNSE[:, :, :1], x_BNSE[:, :, 1:] + feedback_BNE.unsqueeze(2)], 2)
        return x_BNSE.flatten(1, 2), x_BNSE.shape[2]

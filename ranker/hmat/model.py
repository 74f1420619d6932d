"""The Hierarchical Memory-Anchor Transformer (HMAT).

An item is its T semantic tokens and one anchor, S = T+1 slots, the anchor last. The anchor starts from a learned
vector plus the sum of its item's tokens and what else is known of the item, and its output gives the click logit.
Later items see of an item only its memory: the anchor's key and value plus a projection of the item's feedback. An
item's own feedback is thus never visible to itself, and all positions train at once.

Letters: B windows, N items, T semantic tokens, S = T+1 slots, Q the slots that query (S or the anchor alone),
M = N+1 rows of memory, C candidates, H heads, D head, E = H·D width.
"""

from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor, nn

from ranker.config import RankerConfig
from ranker.factors import ItemFactors
from ranker.hmat.attention import dense_attention, with_null
from ranker.hmat.collaborative import CollaborativeMemory
from ranker.hmat.flash import memory_anchor_attention
from ranker.hmat.items import EMBEDDING_STD, ItemEmbedding
from ranker.hmat.layers import ClickHead, FeedbackEmbedding, FeedForward, places
from ranker.hmat.memory import Memory
from ranker.hmat.recompute import in_stretches
from ranker.hmat.rotary import hierarchical_rotation, rotate
from schemas.semantic_id import Layout


class MemoryAnchorAttention(nn.Module):
    """Projections around :func:`ranker.hmat.flash.memory_anchor_attention`, with the null memory."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.null_key_HD = nn.Parameter(torch.zeros(heads, dim // heads))
        self.null_value_HD = nn.Parameter(torch.zeros(heads, dim // heads))

    def remember(self, memory_BNE: Tensor, rotation_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(B, H, M, D)`` of the null memory and of the items' memories."""
        k_BNHD, v_BNHD = (self._heads(x) for x in self.key_value(memory_BNE).chunk(2, -1))
        k_BHND, v_BHND = rotate(k_BNHD, rotation_NF).transpose(1, 2), v_BNHD.transpose(1, 2)
        return with_null(self.null_key_HD, k_BHND), with_null(self.null_value_HD, v_BHND)

    def forward(
        self,
        asking_BNQE: Tensor,
        x_BNSE: Tensor,
        past: tuple[Tensor, Tensor],
        rotation_NSF: Tensor,
        seen_BN: Tensor | None,
        candidates: bool,
    ) -> Tensor:
        """``(B, N, Q, E)``: what the last Q slots of every item, ``asking_BNQE``, read of it and of the past: the first
        ``seen_BN`` memories, or, without that, the last item all, each before it one less, ``candidates`` each all.
        """
        first = x_BNSE.shape[2] - asking_BNQE.shape[2]
        q_BNQHD = rotate(self._heads(self.query(asking_BNQE)), rotation_NSF[..., first:, :])
        k_BNSHD, v_BNSHD = (self._heads(x) for x in self.key_value(x_BNSE).chunk(2, -1))
        k_BNSHD = rotate(k_BNSHD, rotation_NSF)
        q_BHNQD, k_BHNSD, v_BHNSD = (x.movedim(-2, 1) for x in (q_BNQHD, k_BNSHD, v_BNSHD))
        if candidates:
            read_BHNQD = dense_attention(q_BHNQD, k_BHNSD, v_BHNSD, *past, seen_BN=seen_BN, causal=False)
        else:
            read_BHNQD = memory_anchor_attention(q_BHNQD, k_BHNSD, v_BHNSD, *past, seen_BN)
        return self.out(read_BHNQD.movedim(1, -2).flatten(3))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = MemoryAnchorAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def remember(self, anchor_BNE: Tensor, feedback_BNE: Tensor, rotation_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(B, H, M, D)`` of the items' memories in this layer, the null memory first."""
        return self.attention.remember(self.norm(anchor_BNE) + feedback_BNE, rotation_NF)

    def forward(
        self,
        x_BNSE: Tensor,
        past: tuple[Tensor, Tensor],
        rotation_NSF: Tensor,
        seen_BN: Tensor | None = None,
        *,
        anchor_alone: bool,
        candidates: bool = False,
    ) -> Tensor:
        """``(B, N, Q, E)``: all slots, or the anchors alone, updated."""
        normed_BNSE = self.norm(x_BNSE)
        asking_BNQE, x_BNQE = normed_BNSE, x_BNSE
        if anchor_alone:  # normalised once more, which costs less than a gradient of zeros for the other slots
            x_BNQE = x_BNSE[:, :, -1:]
            asking_BNQE = self.norm(x_BNQE)
        read_BNQE = self.attention(asking_BNQE, normed_BNSE, past, rotation_NSF, seen_BN, candidates)
        x_BNQE = x_BNQE + self.dropout(read_BNQE)
        return x_BNQE + self.dropout(self.feed_forward(x_BNQE))


def condensed(x_BNSE: Tensor) -> Tensor:
    """``(B, N, E)``, what of an item becomes its memory: its anchor."""
    return x_BNSE[:, :, -1]


class HMAT(nn.Module):
    """Click logits of a batch of windows, or of candidates against remembered histories."""

    def __init__(
        self,
        config: RankerConfig,
        layout: Layout,
        decoded_CV: Tensor | None = None,
        factors: ItemFactors | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.items = ItemEmbedding(config, layout, decoded_CV)
        self.collaborative = None
        if config.collaborative is not None and factors is not None:
            self.collaborative = CollaborativeMemory(factors, config.collaborative, config.dim)
        self.anchor_E = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.feedback = FeedbackEmbedding(config.dim, graded=config.feedback)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = ClickHead(config.dim)
        if self.collaborative is not None:
            nn.init.zeros_(cast(nn.Linear, self.head[-1]).weight)  # attention begins as a correction of nothing

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """The trained HMAT of a folder, ready to score; :func:`ranker.load` tells what it was trained for, too.

        Raises:
            ArtefactError: the folder does not hold a whole ranker, or one of another architecture.
        """
        from ranker.artefact import ArtefactError, load  # which knows the architectures, and so this class

        trained = load(folder)
        model = trained.model(device)
        if not isinstance(model, cls):
            raise ArtefactError(f"{folder} holds a ranker of arch {trained.config.arch}, not an {cls.__name__}")
        return model

    @property
    def layers(self) -> list[Block]:
        """The blocks in order."""
        return cast(list[Block], list(self.blocks))

    def forward(
        self,
        tokens_BNT: Tensor,
        items_BN: Tensor,
        labels_BN: Tensor,
        graded_BN: Tensor | None = None,
        seen_BN: Tensor | None = None,
        fold_B: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(B, N)``; logit i depends on the feedback of the first ``seen_BN[:, i]`` items only.

        Args:
            tokens_BNT: int64 codes.
            items_BN: int64, hashes of the item ids.
            labels_BN: 0/1 feedback.
            graded_BN: float32 graded feedback, NaN where there is none; read if ``config.feedback``.
            seen_BN: int64, how many of the window's first items are of an earlier time than each, which is also where
                in the history it stands: items of one time share a place. Without, item i stands after i others.
            fold_B: int64, in training the users' folds, whose own feedback is not in the items' factors then.
        """
        known_BMX = self._known(tokens_BNT, items_BN, labels_BN, graded_BN, fold_B)
        x_BNSE, offset_BN = self.embed(tokens_BNT, items_BN, known_BMX, seen_BN, fold_B)
        feedback_BNE = self.feedback(labels_BN, graded_BN)
        rotation_NSF = self._rotation(x_BNSE.shape[1], x_BNSE.shape[2], seen_BN)
        *inner, last = self.layers
        for block in inner:
            past = block.remember(condensed(x_BNSE), feedback_BNE, rotation_NSF[..., -1, :])
            x_BNSE = self._layer(block, x_BNSE, past, rotation_NSF, seen_BN, anchor_alone=False)
        past = last.remember(condensed(x_BNSE), feedback_BNE, rotation_NSF[..., -1, :])
        x_BN1E = self._layer(last, x_BNSE, past, rotation_NSF, seen_BN, anchor_alone=True)  # nothing else is read
        return self.head(x_BN1E)[:, :, 0, 0] + offset_BN

    def remember(
        self,
        tokens_BNT: Tensor,
        items_BN: Tensor,
        labels_BN: Tensor,
        graded_BN: Tensor | None = None,
        seen_BN: Tensor | None = None,
    ) -> Memory:
        """All that scoring needs of histories, each of N items that come before the candidates; arguments as of
        :meth:`forward`."""
        known_BMX = self._known(tokens_BNT, items_BN, labels_BN, graded_BN)
        x_BNSE, _ = self.embed(tokens_BNT, items_BN, known_BMX, seen_BN)
        feedback_BNE = self.feedback(labels_BN, graded_BN)
        rotation_NSF = self._rotation(x_BNSE.shape[1], x_BNSE.shape[2], seen_BN)
        layers = []
        for block in self.layers:
            layers.append(block.remember(condensed(x_BNSE), feedback_BNE, rotation_NSF[..., -1, :]))
            if len(layers) < len(self.layers):
                x_BNSE = self._layer(block, x_BNSE, layers[-1], rotation_NSF, seen_BN, anchor_alone=False)
        return Memory(layers, known_BMX)

    def score(self, memory: Memory, tokens_BCT: Tensor, items_BC: Tensor, seen_BC: Tensor | None = None) -> Tensor:
        """Logits ``(B, C)`` of candidates, each as the item after the first ``seen_BC`` remembered ones (int64), or
        after all of them: what :meth:`forward` gives."""
        after_BC = torch.full_like(items_BC, memory.items) if seen_BC is None else seen_BC
        x_BCSE, offset_BC = self.embed(tokens_BCT, items_BC, memory.taste, after_BC)
        rotation_NSF = self._rotation(memory.items + 1, x_BCSE.shape[2])
        rotation_CSF = rotation_NSF[-1:] if seen_BC is None else rotation_NSF[seen_BC]
        *inner, last = zip(self.layers, memory.layers, strict=True)
        for block, past in inner:
            x_BCSE = block(x_BCSE, past, rotation_CSF, seen_BC, anchor_alone=False, candidates=True)
        block, past = last
        x_BC1E = block(x_BCSE, past, rotation_CSF, seen_BC, anchor_alone=True, candidates=True)
        return self.head(x_BC1E)[:, :, 0, 0] + offset_BC

    def embed(
        self,
        tokens_BNT: Tensor,
        items_BN: Tensor,
        known_BMX: Tensor | None = None,
        seen_BN: Tensor | None = None,
        fold_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | float]:
        """Slots of every item, ``(B, N, S, E)``, the anchor last, and offsets of their logits ``(B, N)``.

        Raises:
            ValueError: the ranker has a memory of taste, and ``known_BMX`` is missing.
        """
        x_BNTE, whole_BNE = self.items(tokens_BNT, items_BN)
        offset_BN: Tensor | float = 0.0
        if self.collaborative is not None:
            if known_BMX is None:
                raise ValueError("the memory lacks the users' taste, which this ranker reads")
            rows_BNF, count_BN = self.collaborative.asked(items_BN, self.items.content(tokens_BNT), fold_B)
            after_BN = places(items_BN, seen_BN)
            offset_BN, taste_BNE = self.collaborative.read(rows_BNF, count_BN, known_BMX, after_BN)
            whole_BNE = whole_BNE + taste_BNE
        anchor_BN1E = (self.anchor_E + x_BNTE.sum(2) + whole_BNE).unsqueeze(2)
        return torch.cat([x_BNTE, anchor_BN1E], 2), offset_BN

    def _known(
        self,
        tokens_BNT: Tensor,
        items_BN: Tensor,
        labels_BN: Tensor,
        graded_BN: Tensor | None,
        fold_B: Tensor | None = None,
    ) -> Tensor | None:
        """What the memory of taste, if there is one, knows of the users after 0 to N items, ``(B, M, X)``."""
        if self.collaborative is None:
            return None
        rows_BNF, _ = self.collaborative.rows(items_BN, self.items.content(tokens_BNT), fold_B)
        feedback_BN = self.collaborative.feedback(labels_BN, graded_BN)
        states_BMG = self.collaborative.states(rows_BNF, feedback_BN, items_BN)
        return torch.cat([states_BMG, self.collaborative.recent(rows_BNF, feedback_BN, states_BMG)], -1)

    def _layer(
        self,
        block: Block,
        x_BNSE: Tensor,
        past: tuple[Tensor, Tensor],
        rotation_NSF: Tensor,
        seen_BN: Tensor | None,
        *,
        anchor_alone: bool,
    ) -> Tensor:
        """``(B, N, Q, E)``: all items after ``block``, in stretches if training is to keep nothing."""

        def stretch(start: int, stop: int) -> Tensor:
            keys, values = (x_BHMD[:, :, :stop] for x_BHMD in past)
            seen = None if seen_BN is None else seen_BN[:, start:stop]
            items = x_BNSE[:, start:stop], (keys, values), rotation_NSF[..., start:stop, :, :], seen
            return cast(Tensor, block(*items, anchor_alone=anchor_alone))

        return in_stretches(stretch, x_BNSE.shape[1], self.config.recompute if self.training else None)

    def _rotation(self, items: int, slots: int, seen_BN: Tensor | None = None) -> Tensor:
        """``(N, S, F)``, or ``(B, N, S, F)`` where items say after how many others they stand."""
        head = self.config.dim // self.config.heads
        rotation_NSF = hierarchical_rotation(items, slots, head, self.config.rope_base, self.anchor_E.device)
        return rotation_NSF if seen_BN is None else rotation_NSF[seen_BN]

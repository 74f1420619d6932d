"""How far the text and the image of an item agree on its shared codes, and how many bits both of them know.

N, P items with both modalities, E embedding width, L shared levels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.semantic_id import Layout
from tokenizer.base.embeddings import BLOCK, MODALITIES, Embeddings
from tokenizer.base.tokenizer import Encoder, Tokenizer

WORTH = 0.1  # of the bits that a level can hold: what both modalities must know for it to be worth sharing
PRIOR_WEIGHTS = 4.0 ** np.arange(-3, 11)  # what a prior may count for, in observations

Codes = NDArray[np.int64]
Numbers = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Shared codes (P, L) of items with both modalities: from both, and from ``"text"`` or ``"image"`` alone.

    ``explained`` is the share of a modality's variance that decoding the other one's shared codes explains (0: no more
    than the mean item, 1: all).
    """

    whole_PL: Codes
    alone_PL: dict[str, Codes]
    explained: dict[str, float]

    def kept(self) -> dict[str, list[float]]:
        """By the modality that is left alone and by number of leading levels: the share of items whose codes stay."""
        stays_PL = {m: np.logical_and.accumulate(self.alone_PL[m] == self.whole_PL, axis=1) for m in MODALITIES}
        return {f"{m}_alone": stays_PL[m].mean(axis=0).tolist() for m in MODALITIES}


@torch.no_grad()
def pairs(model: Tokenizer, embeddings: Embeddings, chosen_P: Tensor) -> Pairs:
    """Encode the items at ``chosen_P``, all of which have both modalities, a block at a time: whole, and by halves."""
    shared, encoder = model.layout.spans()["shared"], Encoder(model)
    whole: list[Tensor] = []
    alone: dict[str, list[Tensor]] = {m: [] for m in MODALITIES}
    missed = dict.fromkeys(MODALITIES, 0.0)
    squares, sums = dict.fromkeys(MODALITIES, 0.0), {m: torch.zeros(()) for m in MODALITIES}
    for index_B in chosen_P.split(BLOCK):
        items = embeddings.select(index_B).to("cpu")
        whole.append(encode(encoder, items)[:, shared])
        unit = items.normalised()
        for m, other in (MODALITIES, MODALITIES[::-1]):
            codes_BS = encode(encoder, items.only(other))
            alone[other].append(codes_BS[:, shared])
            x_BE, predicted_BE = unit.vectors(m).double(), model.decode(codes_BS)[MODALITIES.index(m)].cpu().double()
            missed[m] += float((x_BE - predicted_BE).square().sum())
            squares[m] += float(x_BE.square().sum())
            sums[m] = sums[m] + x_BE.sum(dim=0)
    spread = {m: squares[m] - float(sums[m].square().sum()) / len(chosen_P) for m in MODALITIES}
    return Pairs(
        torch.cat(whole).long().numpy(),
        {m: torch.cat(alone[m]).long().numpy() for m in MODALITIES},
        {m: 1 - missed[m] / max(spread[m], 1e-12) for m in MODALITIES},
    )


def consensus(measured: Pairs, layout: Layout, more: Pairs | None = None) -> dict[str, Any]:
    """How much of the items' content both modalities know, level by level of the shared codes.

    A level is compared only on items whose text alone and image alone agree on all earlier levels, since elsewhere its
    codes describe what different codes left over. For each level:

    * ``agreement``: the share of items with equal codes so far, this level included; ``chance``: the share that text
      and image of unrelated items would reach.
    * ``bits``: what one modality's code tells of the other's beyond the earlier levels, see :func:`known_bits`, mean
      of both directions; over all items, so those that disagreed before count as zero.

    ``bits`` in total is their sum. A level can hold ``log2(codebook_size)`` bits: ``levels_worth_sharing`` counts the
    leading levels that both modalities fill to more than a tenth, and where the total is less than one level can hold,
    the codebook has more codes than both modalities can tell apart.

    ``more`` are other pairs to learn from how codes go together (training items), so that few measured ones suffice.
    """
    taught = [measured] if more is None else [measured, more]
    text_NL, image_NL = (np.concatenate([one.alone_PL[m] for one in taught]) for m in MODALITIES)
    scored_N = np.arange(len(text_NL)) < len(measured.whole_PL)
    agreed_N = np.ones(len(text_NL), dtype=bool)
    levels: list[dict[str, Any]] = []
    for level in range(layout.shared_levels):
        share, prefix_NL = float(agreed_N[scored_N].mean()), text_NL[agreed_N, :level]
        text_N, image_N, counted_N = text_NL[agreed_N, level], image_NL[agreed_N, level], scored_N[agreed_N]
        both_ways = [
            known_bits(cue_N, code_N, prefix_NL, counted_N, layout.codebook_size)
            for cue_N, code_N in ((text_N, image_N), (image_N, text_N))
        ]
        agreed_N = agreed_N & (text_NL[:, level] == image_NL[:, level])
        levels.append(
            {
                "slot": layout.slot_names()[level],
                "agreement": float(agreed_N[scored_N].mean()),
                "chance": _chance(*(measured.alone_PL[m][:, : level + 1] for m in MODALITIES)),
                "bits": share * sum(both_ways) / 2,
            }
        )
    worth = [level["bits"] > WORTH * np.log2(layout.codebook_size) for level in levels]
    return {
        "levels": levels,
        "bits": sum(level["bits"] for level in levels),
        "levels_worth_sharing": (*worth, False).index(False),
        "explained": measured.explained,
    }


def known_bits(cue_N: Codes, code_N: Codes, context_NL: Codes, scored_N: Rows, codebook_size: int) -> float:
    """Mutual information of a code and a cue given their context, in bits, as far as it can be shown.

    It is how much better a code is predicted with its cue than without, on average over the scored items, each from
    the counts of all *other* items: so rare codes and empty cells do not pass for knowledge. (Information counted
    naively, also less what shuffled codes show, is off by bits where cells outnumber items.) A prediction backs off to
    a coarser one where counts are few: from cue and context to a mixture of the context alone and "the code equals the
    cue", from there to the code's frequency, from there to all codes alike; how far, is what predicts best. Few items
    show less than there is.
    """
    if not scored_N.any():
        return 0.0
    nothing_N0 = context_NL[:, :0]
    uniform_N = np.full(len(code_N), 1 / codebook_size)
    overall_N = _expectation(code_N, nothing_N0, uniform_N, scored_N)
    without_N = _expectation(code_N, context_NL, overall_N, scored_N)
    equal_N = cue_N == code_N
    agreement = float(equal_N[scored_N].mean())
    with_cue_NL = np.column_stack([context_NL, cue_N])
    told = [
        _mean_log2(_expectation(code_N, with_cue_NL, (1 - trust) * without_N + trust * equal_N, scored_N), scored_N)
        for trust in (0, agreement / 2, agreement)
    ]
    return max(0.0, max(told) - _mean_log2(without_N, scored_N))


def encode(model: Tokenizer | Encoder, items: Embeddings) -> Tensor:
    """Codes (N, S) int16 of the items, on the CPU; for many calls an :class:`Encoder` spares copying the tokenizer."""
    encoder = model if isinstance(model, Encoder) else Encoder(model)
    return encoder(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N).cpu()


def _expectation(code_N: Codes, given_NL: Codes, prior_N: Numbers, scored_N: Rows) -> Numbers:
    """The probability of each item's code among the other items that are alike in ``given_NL``, mixed with a prior."""
    alike_N, with_code_N = _others_alike(given_NL), _others_alike(np.column_stack([given_NL, code_N]))
    options = [(with_code_N + weight * prior_N) / (alike_N + weight) for weight in PRIOR_WEIGHTS]
    return max(options, key=lambda option_N: _mean_log2(option_N, scored_N))


def _others_alike(given_NL: Codes) -> Numbers:
    """How many other rows equal each row."""
    _, group_N, size_G = np.unique(given_NL, axis=0, return_inverse=True, return_counts=True)
    return (size_G[group_N.ravel()] - 1).astype(np.float64)


def _mean_log2(p_N: Numbers, scored_N: Rows) -> float:
    return float(np.log2(p_N[scored_N]).mean())


def _chance(text_PL: Codes, image_PL: Codes) -> float:
    """The probability that a row of one equals a row of the other."""
    both_2PL = np.concatenate([text_PL, image_PL])
    _, group_2P = np.unique(both_2PL, axis=0, return_inverse=True)
    text_P, image_P = np.split(group_2P.ravel(), 2)
    counts = [np.bincount(group_P, minlength=group_2P.max() + 1) / len(group_P) for group_P in (text_P, image_P)]
    return float(counts[0] @ counts[1])

"""How good a tokenizer is: use of its codes, collisions, reconstruction, neighbours, and what its parts share.

N items, D embedding width, S slots, K codes of a level.
"""

import hashlib
from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information
from torch import Tensor
from torch.nn import functional as F

from schemas.semantic_id import PARTS, Layout
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError, sample
from tokenizer.base.tokenizer import Encoder, Tokenizer
from tokenizer.quality.consensus import Pairs, consensus, encode, pairs
from tokenizer.quality.generalisation import generalisation

FIDELITY_SAMPLE = 5_000
INFORMATION_SAMPLE = 20_000
PAIR_SAMPLE = 10_000
NEIGHBOURS = 10
LEAST_ROOM = 0.05  # share of the entropy that chance must leave for a dependence to show


def evaluate(model: Tokenizer, embeddings: Embeddings, held_out: Embeddings | None = None) -> dict[str, Any]:
    """Measures of a trained tokenizer, ready for JSON; ``None`` where the items or the method do not allow a measure.

    ``items``, ``levels`` and ``collisions`` are over the whole catalogue, training and held-out items, which is read
    once and a block at a time (the embeddings may be memory-mapped); ``information`` is over a fixed sample of it.
    ``train`` and ``held_out`` hold what :func:`fidelity` finds on fixed samples of either, equally large since more
    items are nearer to each other, and what :func:`agreement` finds on items with both modalities.
    ``generalisation`` compares the two, see :func:`tokenizer.quality.generalisation.generalisation`.

    Raises:
        TokenizerError: there are no ``embeddings``, or ones that the tokenizer cannot encode.
    """
    if not len(embeddings):
        raise TokenizerError("there are no items to measure the tokenizer on")
    splits = {"train": embeddings}
    if held_out is not None and len(held_out):
        splits["held_out"] = held_out
    found = survey(model, list(splits.values()))
    found["generalisation"] = generalisation(model, embeddings, held_out)
    drawn = {name: _pairs(model, items) for name, items in splits.items()}
    size = min(FIDELITY_SAMPLE, *map(len, splits.values()))
    for name, items in splits.items():
        more = drawn["train"] if name == "held_out" else None
        found[name] = fidelity(model, items, size) | agreement(drawn[name], model.layout, more)
    return found


def survey(model: Tokenizer, catalogue: Sequence[Embeddings]) -> dict[str, Any]:
    """``items``, ``levels``, ``collisions`` and ``information`` of a catalogue in several pieces.

    ``collisions``: the share of items that are not the first with their codes (``rate``), before any disambiguation,
    and the part of it that equal embeddings force (``from_identical_content``). Items are told apart by 64-bit hashes.
    """
    layout, total, done = model.layout, sum(map(len, catalogue)), 0
    counts_SK = torch.zeros(layout.slots, layout.codebook_size + 1, dtype=torch.int64)
    code_keys_N, content_keys_N = np.empty(total, np.uint64), np.empty(total, np.uint64)
    chosen_N = torch.zeros(total, dtype=torch.bool)
    chosen_N[sample(total, INFORMATION_SAMPLE)] = True
    chosen: list[Tensor] = []
    encoder = Encoder(model)
    for block in chain.from_iterable(items.blocks() for items in catalogue):
        codes_BS, rows = encode(encoder, block), slice(done, done + len(block))
        counts_SK += torch.stack([torch.bincount(codes_B, minlength=counts_SK.shape[1]) for codes_B in codes_BS.T])
        code_keys_N[rows] = [_key(row) for row in codes_BS.numpy()]
        content_keys_N[rows] = _content_keys(block)
        chosen.append(codes_BS[chosen_N[rows]])
        done = rows.stop
    return {
        "items": total,
        "levels": code_use(layout, counts_SK),
        "collisions": {
            "rate": 1 - len(np.unique(code_keys_N)) / total,
            "from_identical_content": 1 - len(np.unique(content_keys_N)) / total,
        },
        "information": information(layout, torch.cat(chosen)),
    }


def code_use(layout: Layout, counts_SK: Tensor) -> list[dict[str, Any]]:
    """By slot, from how often each code was given: codes used, their share of the codebook, and perplexity."""
    levels = []
    for name, counts_K in zip(layout.slot_names(), counts_SK[:, : layout.absent].double(), strict=True):
        used = int((counts_K > 0).sum())
        perplexity = float(torch.special.entr(counts_K / counts_K.sum()).sum().exp()) if used else 0.0
        levels.append({"slot": name, "used": used, "used_share": used / layout.codebook_size, "perplexity": perplexity})
    return levels


def information(layout: Layout, codes_NS: Tensor) -> dict[str, float | None]:
    """What the first codes of two parts tell of each other, see :func:`shared_information`, over items with both."""
    spans = layout.spans()
    found: dict[str, float | None] = {}
    for a, b in combinations(PARTS, 2):
        found[f"{a}_{b}"] = None
        if spans[a].start < spans[a].stop and spans[b].start < spans[b].stop:
            first_N2 = codes_NS[:, [spans[a].start, spans[b].start]]
            both_N2 = first_N2[(first_N2 != layout.absent).all(dim=1)].numpy()
            found[f"{a}_{b}"] = shared_information(both_N2[:, 0], both_N2[:, 1]) if len(both_N2) else None
    return found


def shared_information(a_N: NDArray[Any], b_N: NDArray[Any]) -> float | None:
    """Mutual information of two labellings as a share of the smaller entropy, corrected for chance.

    Finite samples make independent codes look dependent, the more so the more cells are empty; what chance is expected
    to show is taken off both the information and the entropy it is compared with. So independent codes give about 0
    and equal ones 1, whatever the sample; in between the share errs on the small side. ``None`` if a labelling is
    constant, or so fine for the sample that chance alone shows nearly all there is.
    """
    entropy = min(mutual_info_score(a_N, a_N), mutual_info_score(b_N, b_N))
    chance = expected_mutual_information(contingency_matrix(a_N, b_N, sparse=True), len(a_N))
    if entropy - chance <= LEAST_ROOM * entropy:
        return None
    return float((mutual_info_score(a_N, b_N) - chance) / (entropy - chance))


@torch.no_grad()
def fidelity(model: Tokenizer, embeddings: Embeddings, size: int = FIDELITY_SAMPLE) -> dict[str, Any]:
    """Likeness of at most ``size`` items, drawn at random, to what decoding makes of them, by modality.

    ``reconstruction`` is the mean cosine; for ``neighbour_overlap`` see :func:`neighbour_overlap`, which is also taken
    of both modalities side by side (``joint``).
    """
    raw = embeddings.select(sample(len(embeddings), size)).to("cpu")
    rebuilt = dict(zip(MODALITIES, (x_ND.cpu() for x_ND in model.decode(encode(model, raw))), strict=True))
    items = raw.normalised()
    found: dict[str, Any] = {"items": len(items), "reconstruction": {}, "neighbour_overlap": {}}
    for m in MODALITIES:
        has_N = items.present(m)
        original_ND, rebuilt_ND = items.vectors(m)[has_N], rebuilt[m][has_N]
        cosine_N = F.cosine_similarity(original_ND, rebuilt_ND, dim=1)
        found["reconstruction"][m] = float(cosine_N.mean()) if len(cosine_N) else None
        found["neighbour_overlap"][m] = neighbour_overlap(original_ND, rebuilt_ND)
    original_ND = torch.cat([items.vectors(m) for m in MODALITIES], dim=1)
    unit = [F.normalize(rebuilt[m], dim=1) * items.present(m)[:, None] for m in MODALITIES]
    found["neighbour_overlap"]["joint"] = neighbour_overlap(original_ND, torch.cat(unit, dim=1))
    return found


def neighbour_overlap(original_ND: Tensor, rebuilt_ND: Tensor, k: int = NEIGHBOURS) -> float | None:
    """Mean share of an item's k nearest (by cosine) that are still among its k nearest after decoding."""
    if len(original_ND) <= k:
        return None
    units = F.normalize(original_ND, dim=1), F.normalize(rebuilt_ND, dim=1)
    nearest = [(x_ND @ x_ND.T).fill_diagonal_(-2.0).topk(k, dim=1).indices for x_ND in units]
    return float((nearest[0][:, :, None] == nearest[1][:, None, :]).any(dim=2).float().mean())


def agreement(found: Pairs | None, layout: Layout, more: Pairs | None) -> dict[str, Any]:
    """What becomes of the shared codes when a modality is withheld, and how much both modalities know.

    ``codes_kept``: by the modality left alone, the share of items that keep the first one, two, … shared codes, and
    ``first_code_kept`` the first of these; ``consensus``: see :func:`tokenizer.quality.consensus.consensus`, learning
    from ``more`` pairs too.
    """
    if found is None:
        return {"first_code_kept": None, "codes_kept": None, "consensus": None}
    kept = found.kept()
    return {
        "first_code_kept": {name: shares[0] for name, shares in kept.items()},
        "codes_kept": kept,
        "consensus": consensus(found, layout, more),
    }


def _pairs(model: Tokenizer, embeddings: Embeddings) -> Pairs | None:
    both_P = embeddings.has_both_N.nonzero()[:, 0]
    return pairs(model, embeddings, both_P[sample(len(both_P), PAIR_SAMPLE)]) if len(both_P) else None


def _content_keys(block: Embeddings) -> list[int]:
    """Of each item what is there and the very bits of it."""
    bits = {m: block.vectors(m).cpu().contiguous().view(torch.uint8).numpy() for m in MODALITIES}
    has_B2 = torch.stack([block.present(m).cpu() for m in MODALITIES], dim=1)
    return [
        _key(flags_2, *(bits[m][i] for m, has in zip(MODALITIES, flags_2, strict=True) if has))
        for i, flags_2 in enumerate(has_B2.numpy())
    ]


def _key(*pieces: NDArray[Any]) -> int:
    """64 bits that name the bytes of the pieces."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece.tobytes())
    return int.from_bytes(digest.digest())

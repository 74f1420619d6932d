"""How good a tokenizer is: use of its codes, collisions, reconstruction, neighbours, and what its parts share.

N items, D embedding width, S slots.
"""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from tokenizer.dst import DST
from tokenizer.embeddings import MODALITIES, Embeddings

BLOCK = 8192
NEIGHBOUR_SAMPLE = 5_000
INFORMATION_SAMPLE = 20_000
NEIGHBOURS = 10
SHUFFLES = 4


def evaluate(model: DST, embeddings: Embeddings, held_out: Embeddings | None = None) -> dict[str, Any]:
    """Measures of a trained tokenizer, ready for JSON; ``None`` where the items do not allow a measure.

    ``levels`` (codes used, perplexity, by slot) and ``collisions`` are over all of ``embeddings``, the rest over a
    fixed sample of them, and once more over ``held_out``. Collisions are the share of items that are not the first with
    their codes; ``from_identical_content`` is the part of them that equal embeddings force.
    """
    codes_NS = _encode(model, embeddings)
    sample = _sample(len(embeddings), INFORMATION_SAMPLE)
    found: dict[str, Any] = {
        "items": len(embeddings),
        "levels": code_use(model, codes_NS),
        "collisions": collisions(codes_NS, embeddings),
        "information": information(model, codes_NS[sample]),
        "train": _quality(model, embeddings),
    }
    if held_out is not None and len(held_out):
        found["held_out"] = _quality(model, held_out)
    return found


def code_use(model: DST, codes_NS: Tensor) -> list[dict[str, Any]]:
    """By slot: codes used, their share of the codebook, and the perplexity of the present codes."""
    size, levels = model.layout.codebook_size, []
    for name, codes_N in zip(model.layout.slot_names(), codes_NS.T, strict=True):
        counts_K = torch.bincount(codes_N[codes_N != model.layout.absent].long(), minlength=size).double()
        used = int((counts_K > 0).sum())
        perplexity = float(torch.special.entr(counts_K / counts_K.sum().clamp(min=1)).sum().exp()) if used else 0.0
        levels.append({"slot": name, "used": used, "used_share": used / size, "perplexity": perplexity})
    return levels


def collisions(codes_NS: Tensor, embeddings: Embeddings) -> dict[str, float]:
    """Shares of items that repeat an earlier item's codes, and that repeat its very embeddings."""
    distinct_codes = len(torch.unique(codes_NS, dim=0))
    distinct_items = len(np.unique(_content_keys(embeddings), axis=0))
    return {
        "rate": 1 - distinct_codes / len(codes_NS),
        "from_identical_content": 1 - distinct_items / len(codes_NS),
    }


def information(model: DST, codes_NS: Tensor) -> dict[str, float | None]:
    """Mutual information between the parts' first codes, as a share of the smaller entropy, 0 to 1.

    Finite samples make independent codes look dependent; what a shuffled code tells is taken off both the
    information and the entropy it is compared with, so that independent codes give 0 and equal ones 1.
    """
    spans = model.layout.spans()
    firsts = {part: codes_NS[:, span.start].numpy() for part, span in spans.items() if span.stop > span.start}
    found: dict[str, float | None] = {}
    for a, b in combinations(firsts, 2):
        both_N = (firsts[a] != model.layout.absent) & (firsts[b] != model.layout.absent)
        found[f"{a}_{b}"] = shared_information(firsts[a][both_N], firsts[b][both_N]) if both_N.sum() > 1 else None
    return found


def shared_information(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Bias-corrected mutual information of two labellings as a share of the smaller entropy."""
    rng = np.random.default_rng(0)
    floor = float(np.mean([mutual_info_score(a_N, rng.permutation(b_N)) for _ in range(SHUFFLES)]))
    entropy = min(mutual_info_score(a_N, a_N), mutual_info_score(b_N, b_N))
    return float((mutual_info_score(a_N, b_N) - floor) / max(entropy - floor, 1e-9))


def _quality(model: DST, embeddings: Embeddings) -> dict[str, Any]:
    """Reconstruction, neighbours, agreement and consensus on (a sample of) some items."""
    items = embeddings.select(_sample(len(embeddings), NEIGHBOUR_SAMPLE)).to("cpu").normalised()
    codes_NS = _encode(model, items)
    rebuilt = dict(zip(MODALITIES, (x_ND.cpu() for x_ND in model.decode(codes_NS)), strict=True))
    found: dict[str, Any] = {"items": len(items), "reconstruction": {}, "neighbour_overlap": {}}
    for m in MODALITIES:
        has_N = items.present(m)
        original_ND, rebuilt_ND = items.vectors(m)[has_N], rebuilt[m][has_N]
        cosine_N = F.cosine_similarity(original_ND, rebuilt_ND, dim=1)
        found["reconstruction"][m] = float(cosine_N.mean()) if len(cosine_N) else None
        found["neighbour_overlap"][m] = neighbour_overlap(original_ND, rebuilt_ND)
    unit = {m: F.normalize(rebuilt[m], dim=1) * items.present(m)[:, None] for m in MODALITIES}
    original_ND = torch.cat([items.vectors(m) for m in MODALITIES], dim=1)
    rebuilt_ND = torch.cat([unit[m] for m in MODALITIES], dim=1)
    found["neighbour_overlap"]["joint"] = neighbour_overlap(original_ND, rebuilt_ND)
    return found | _agreement(model, items, codes_NS)


def neighbour_overlap(original_ND: Tensor, rebuilt_ND: Tensor, k: int = NEIGHBOURS) -> float | None:
    """Mean share of an item's k nearest (by cosine) that are still among its k nearest after decoding."""
    if len(original_ND) <= k:
        return None
    units = F.normalize(original_ND, dim=1), F.normalize(rebuilt_ND, dim=1)
    nearest = [(x_ND @ x_ND.T).fill_diagonal_(-2.0).topk(k, dim=1).indices for x_ND in units]
    return float((nearest[0][:, :, None] == nearest[1][:, None, :]).any(dim=2).float().mean())


def _agreement(model: DST, items: Embeddings, codes_NS: Tensor) -> dict[str, Any]:
    """What becomes of the shared codes of items with both modalities when one is withheld.

    ``first_code_kept``: share whose first shared code stays. ``consensus``: how much of a catalogue's content both
    modalities know: ``first_code_agreement`` of the two modalities alone, its ``chance``, and
    ``explained`` of a modality's variance by the shared codes of the other (0: nothing, 1: all).
    """
    both_N = items.has_both_N
    if not bool(both_N.any()):
        return {"first_code_kept": None, "consensus": None}
    pairs, whole_N = items.select(both_N), codes_NS[both_N, 0]
    alone = {m: _encode(model, pairs.only(m)) for m in MODALITIES}
    explained = {}
    for m, other in zip(MODALITIES, reversed(MODALITIES), strict=True):
        predicted_ND = model.decode(alone[other])[MODALITIES.index(m)].cpu()
        original_ND = pairs.vectors(m)
        unexplained = (original_ND - predicted_ND).square().sum() / (
            (original_ND - original_ND.mean(dim=0)).square().sum().clamp(min=1e-12)
        )
        explained[m] = float(1 - unexplained)
    first = {m: alone[m][:, 0] for m in MODALITIES}
    shares = [torch.bincount(f.long(), minlength=model.layout.codebook_size) / len(f) for f in first.values()]
    return {
        "first_code_kept": {f"{m}_alone": float((first[m] == whole_N).float().mean()) for m in MODALITIES},
        "consensus": {
            "first_code_agreement": float((first["text"] == first["image"]).float().mean()),
            "chance": float((shares[0] * shares[1]).sum()),
            "explained": explained,
        },
    }


def _encode(model: DST, items: Embeddings) -> Tensor:
    return model.encode(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N).cpu()


def _sample(count: int, size: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:size].sort().values


def _content_keys(embeddings: Embeddings) -> np.ndarray:
    """Two 64-bit hashes (N, 2) of each item's embeddings, exact integer arithmetic on their bits, a block at a time."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.zeros(len(embeddings), 2, dtype=torch.int64)
    for m in MODALITIES:
        width = embeddings.vectors(m).shape[1]
        weights_D2 = torch.randint(-(2**62), 2**62, (width + 1, 2), generator=generator)
        for start in range(0, len(embeddings), BLOCK):
            rows = slice(start, start + BLOCK)
            has_N = embeddings.present(m)[rows].cpu()
            bits_ND = embeddings.vectors(m)[rows].cpu().float().contiguous().view(torch.int32).long()
            bits_ND = torch.cat([bits_ND, torch.ones(len(bits_ND), 1, dtype=torch.int64)], dim=1) * has_N[:, None]
            for i in range(2):
                keys[rows, i] += (bits_ND * weights_D2[:, i]).sum(dim=1)
    return keys.numpy()

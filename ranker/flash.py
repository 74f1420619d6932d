"""Memory-anchor attention in linear memory: flash attention over the past, a small block for the item itself.

The past is plain causal attention, once for every slot; what an item reads of itself is a product of S×S. Each gives
its part of the softmax with the logarithm of its denominator, and the two are merged by these. Backwards, the merged
output and denominator go to flash attention's own backward pass, as in ring attention (Liu et al. 2023): a part's
gradient needs nothing else of the other parts. Where the items are the last ones of a longer history, the past is two
parts: the memories that all of them see, and those that they come to see one by one.

Nothing is laid out anew on the way: what queries is a head of its own to flash attention, and the own item is one
product over all heads, of which only what lies on the diagonal counts.

Letters as in :mod:`ranker.attention`; R = Q·H what queries in an item, C = S·H what it sees of itself, X = B·N.
"""

from functools import reduce
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker.attention import dense_attention, own_item_mask

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)


class Past(NamedTuple):
    """What flash attention over a part of the past gives: output (B, R, N, D), log denominators (B, R, N) float32, and
    what its backward pass asks for besides."""

    read_BRND: Tensor
    log_BRN: Tensor
    random: tuple[Tensor, ...] = ()
    longest: tuple[int, ...] = ()


def memory_anchor_attention(
    q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHMD: Tensor, past_v_BHMD: Tensor
) -> Tensor:
    """:func:`ranker.attention.dense_attention` in memory linear in the items, where a flash attention tells its
    denominators: on CPU, and on CUDA in half precision."""
    half_on_cuda = q_BHNQD.device.type == "cuda" and q_BHNQD.dtype in HALF
    if q_BHNQD.device.type != "cpu" and not half_on_cuda:
        return dense_attention(q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHMD, past_v_BHMD)
    q_BNQHD, k_BNSHD, v_BNSHD = (x.movedim(1, 3) for x in (q_BHNQD, k_BHNSD, v_BHNSD))
    read_BNQHD: Tensor = _Merged.apply(q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHMD, past_v_BHMD)
    return read_BNQHD.movedim(3, 1)


class _Merged(torch.autograd.Function):
    """All parts and their merger."""

    @staticmethod
    def forward(
        ctx: Any, q_BNQHD: Tensor, k_BNSHD: Tensor, v_BNSHD: Tensor, past_k_BHMD: Tensor, past_v_BHMD: Tensor
    ) -> Tensor:
        """``(B, N, Q, H, D)``, what each query reads."""
        parts = _parts(q_BNQHD.shape[1], past_k_BHMD, past_v_BHMD)
        pasts = [read_past(_as_heads(q_BNQHD), k, v, causal=causal) for k, v, causal in parts]
        pasts_XR1 = [past.log_BRN.transpose(1, 2).reshape(-1, past.log_BRN.shape[1], 1) for past in pasts]
        own_XRC = _own_scores(q_BNQHD, k_BNSHD)
        log_XR1 = reduce(torch.logaddexp, pasts_XR1, own_XRC.logsumexp(-1, keepdim=True))
        own_XRC = (own_XRC - log_XR1).exp_().to(v_BNSHD.dtype)
        weights_XR1 = [(past_XR1 - log_XR1).exp_().to(v_BNSHD.dtype) for past_XR1 in pasts_XR1]
        reads_XRD = [past.read_BRND.transpose(1, 2).flatten(0, 1) for past in pasts]
        past_XRD = reduce(torch.add, map(torch.mul, reads_XRD, weights_XR1))
        read_BNQHD = torch.baddbmm(past_XRD, own_XRC, _flat(v_BNSHD)).view(q_BNQHD.shape)
        ctx.longest, random = [past.longest for past in pasts], [past.random for past in pasts]
        ctx.randoms = [len(tensors) for tensors in random]
        inputs = q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHMD, past_v_BHMD
        ctx.save_for_backward(*inputs, read_BNQHD, log_XR1, own_XRC, *chain(*random))
        return read_BNQHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the five inputs."""
        g_BNQHD = gradients[0].contiguous()
        q_BNQHD, k_BNSHD, v_BNSHD, past_k, past_v, read_BNQHD, log_XR1, own_XRC, *more = ctx.saved_tensors
        log_BRN = log_XR1.view(len(q_BNQHD), -1, log_XR1.shape[1]).transpose(1, 2).contiguous()
        g_BRND, q_BRND, read_BRND = map(_as_heads, (g_BNQHD, q_BNQHD, read_BNQHD))
        random = iter(more)
        merged = [
            Past(read_BRND, log_BRN, tuple(islice(random, count)), longest)
            for count, longest in zip(ctx.randoms, ctx.longest, strict=True)
        ]
        parts = zip(_parts(q_BNQHD.shape[1], past_k, past_v), merged, strict=True)
        to_q, to_past_k, to_past_v = zip(
            *(past_backward(g_BRND, q_BRND, k, v, past, causal=causal) for (k, v, causal), past in parts), strict=True
        )
        q_XRD, k_XCD, v_XCD, g_XRD, read_XRD = map(_flat, (q_BNQHD, k_BNSHD, v_BNSHD, g_BNQHD, read_BNQHD))
        delta_XR1 = (g_XRD * read_XRD).sum(-1, keepdim=True)
        scale = q_BNQHD.shape[-1] ** -0.5
        to_scores = own_XRC * torch.baddbmm(delta_XR1, g_XRD, v_XCD.transpose(1, 2), beta=-scale, alpha=scale)
        to_q_XRD = torch.baddbmm(reduce(torch.add, to_q).transpose(1, 2).flatten(0, 1), to_scores, k_XCD)
        return (
            to_q_XRD.view(q_BNQHD.shape),
            (to_scores.transpose(1, 2) @ q_XRD).view(k_BNSHD.shape),
            (own_XRC.transpose(1, 2) @ g_XRD).view(v_BNSHD.shape),
            torch.cat(to_past_k, 2),
            torch.cat(to_past_v, 2),
        )


def _parts(items: int, past_k_BHMD: Tensor, past_v_BHMD: Tensor) -> list[tuple[Tensor, Tensor, bool]]:
    """Keys and values of the memories that every one of the ``items`` sees, if there are any, and of those that they
    come to see one by one, which is causal."""
    seen = past_k_BHMD.shape[2] - items
    (seen_k, k), (seen_v, v) = (x.split([seen, items], 2) for x in (past_k_BHMD, past_v_BHMD))
    return ([(seen_k, seen_v, False)] if seen else []) + [(k, v, True)]


def read_past(q_BRND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, *, causal: bool) -> Past:
    """Flash attention of every query of an item over a part of the memories; ``causal``: item i sees rows 0 … i."""
    k_BRMD, v_BRMD = (_for_every_query(x, q_BRND) for x in (k_BHMD, v_BHMD))
    if q_BRND.device.type == "cpu":
        return Past(*aten._scaled_dot_product_flash_attention_for_cpu(q_BRND, k_BRMD, v_BRMD, 0.0, causal))
    read, log, _, _, longest_q, longest_k, *random, _ = aten._scaled_dot_product_flash_attention(
        q_BRND, k_BRMD, v_BRMD, 0.0, causal
    )
    return Past(read, log, tuple(random), (longest_q, longest_k))


def past_backward(
    g_BRND: Tensor, q_BRND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, past: Past, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries (B, R, N, D) and of a part of the memories (B, H, M, D), from that of what was read.

    ``past`` holds the *merged* output and denominators.
    """
    k_BRMD, v_BRMD = (_for_every_query(x, q_BRND) for x in (k_BHMD, v_BHMD))
    inputs = g_BRND, q_BRND, k_BRMD, v_BRMD, past.read_BRND, past.log_BRN
    if q_BRND.device.type == "cpu":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(*inputs, 0.0, causal)
    else:
        found = aten._scaled_dot_product_flash_attention_backward(
            *inputs, None, None, *past.longest, 0.0, causal, *past.random
        )
    return found[0], _over_queries(found[1], k_BHMD), _over_queries(found[2], v_BHMD)


def _own_scores(q_BNQHD: Tensor, k_BNSHD: Tensor) -> Tensor:
    """Scores (X, R, C), float32 or better, of an item's queries with its own slots, of the same head alone."""
    queries, heads, head = q_BNQHD.shape[2:]
    scores_XRC = _flat(q_BNQHD) @ _flat(k_BNSHD).transpose(1, 2) * head**-0.5
    own_QS = own_item_mask(k_BNSHD.shape[2], queries, q_BNQHD.device)
    visible_RC = torch.kron(own_QS, torch.eye(heads, dtype=torch.bool, device=q_BNQHD.device))
    return scores_XRC.to(torch.promote_types(scores_XRC.dtype, torch.float32)).masked_fill_(~visible_RC, -torch.inf)


def _flat(x_BNSHD: Tensor) -> Tensor:
    """(B, N, S, H, D) as (X, C, D)."""
    return x_BNSHD.reshape(-1, x_BNSHD.shape[2] * x_BNSHD.shape[3], x_BNSHD.shape[4])


def _as_heads(x_BNQHD: Tensor) -> Tensor:
    """(B, N, Q, H, D) as (B, R, N, D), without a copy."""
    return x_BNQHD.flatten(2, 3).transpose(1, 2)


def _for_every_query(x_BHMD: Tensor, q_BRND: Tensor) -> Tensor:
    """Memories (B, H, M, D) as (B, R, M, D)."""
    return x_BHMD.repeat(1, q_BRND.shape[1] // x_BHMD.shape[1], 1, 1)


def _over_queries(x_BRMD: Tensor, like_BHMD: Tensor) -> Tensor:
    """What all of an item's queries ask of a memory to change."""
    return x_BRMD.unflatten(1, (-1, like_BHMD.shape[1])).sum(1)

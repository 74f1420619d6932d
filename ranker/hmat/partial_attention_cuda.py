"""Flash attention over the memories on CUDA, whose operators know no mask: every query of an item is a head of its own.

Two parts: the memories that all items see, if the items are the last ones of a longer history, and those that they come
to see one by one, which is plain causal attention.

Letters as in :mod:`ranker.hmat.attention`; R = Q·H.
"""

import torch
from torch import Tensor

from ranker.hmat.partial_attention import Past, merged

aten = torch.ops.aten


def read_past(q_BNQHD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor) -> Past:
    """What every query reads of the memories: the last item of all, each before it of one less."""
    q_BRND = _as_heads(q_BNQHD)
    parts, all_random, longest = [], [], []
    for first, rows, causal in _parts(q_BNQHD.shape[1], k_BHMD.shape[2]):
        k_BRMD, v_BRMD = (_for_every_query(x.narrow(2, first, rows), q_BRND) for x in (k_BHMD, v_BHMD))
        read_BRND, log_BRN, _, _, longest_q, longest_k, *random, _ = aten._scaled_dot_product_flash_attention(
            q_BRND, k_BRMD, v_BRMD, 0.0, causal
        )
        parts.append((read_BRND, log_BRN))
        all_random += random
        longest += [longest_q, longest_k]
    read_BRND, log_BRN = merged(parts)
    read_BNQHD = read_BRND.transpose(1, 2).reshape(q_BNQHD.shape)
    return Past(read_BNQHD, log_BRN.transpose(1, 2).reshape(q_BNQHD.shape[:4]), tuple(all_random), tuple(longest))


def past_backward(
    g_BNQHD: Tensor, q_BNQHD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, past: Past
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries and memories from that of what was read; ``past`` holds output and denominators *merged*
    with whatever else the softmax is over."""
    g_BRND, q_BRND, read_BRND = map(_as_heads, (g_BNQHD, q_BNQHD, past.read_BNQHD))
    log_BRN = past.log_BNQH.flatten(2).transpose(1, 2).contiguous()
    to_q_BRND, to_k_BHMD, to_v_BHMD = torch.zeros_like(q_BRND), torch.zeros_like(k_BHMD), torch.zeros_like(v_BHMD)
    for number, (first, rows, causal) in enumerate(_parts(q_BNQHD.shape[1], k_BHMD.shape[2])):
        k_BRMD, v_BRMD = (_for_every_query(x.narrow(2, first, rows), q_BRND) for x in (k_BHMD, v_BHMD))
        random, longest = (x[2 * number : 2 * number + 2] for x in (past.random, past.longest))
        inputs = g_BRND, q_BRND, k_BRMD, v_BRMD, read_BRND, log_BRN
        more_q, more_k, more_v, *_ = aten._scaled_dot_product_flash_attention_backward(
            *inputs, None, None, *longest, 0.0, causal, *random
        )
        to_q_BRND += more_q
        for to_x, more in ((to_k_BHMD, more_k), (to_v_BHMD, more_v)):
            of_all_queries = more.unflatten(1, (-1, k_BHMD.shape[1])).sum(1)
            to_x.narrow(2, first, rows).add_(of_all_queries)
    return to_q_BRND.transpose(1, 2).reshape(q_BNQHD.shape), to_k_BHMD, to_v_BHMD


def _parts(items: int, memories: int) -> list[tuple[int, int, bool]]:
    """Of the memories, each its first, how many, and whether causal."""
    seen = memories - items
    own = (seen, items, True)
    return [(0, seen, False), own] if seen else [own]


def _as_heads(x_BNQHD: Tensor) -> Tensor:
    """(B, N, Q, H, D) as (B, R, N, D), without a copy."""
    return x_BNQHD.flatten(2, 3).transpose(1, 2)


def _for_every_query(x_BHMD: Tensor, q_BRND: Tensor) -> Tensor:
    """Memories (B, H, M, D) as (B, R, M, D)."""
    return x_BHMD.repeat(1, q_BRND.shape[1] // x_BHMD.shape[1], 1, 1)

"""Memory-anchor attention in linear memory: flash attention over the past, a small block for the item itself.

The past is plain causal attention, once for every slot; what an item reads of itself is a product of S×S. Each gives
its part of the softmax with the logarithm of its denominator, and the two are merged by these. Backwards, the merged
output and denominator go to flash attention's own backward pass, as in ring attention (Liu et al. 2023): a part's
gradient needs nothing else of the other part.

Nothing is laid out anew on the way: what queries is a head of its own to flash attention, and the own item is one
product over all heads, of which only what lies on the diagonal counts.

Letters as in :mod:`ranker.attention`; R = Q·H what queries in an item, C = S·H what it sees of itself, X = B·N.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker.attention import dense_attention, own_item_mask

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)


class Past(NamedTuple):
    """What flash attention over the past gives: output (B, R, N, D), log denominators (B, R, N) float32, and what its
    backward pass asks for besides."""

    read_BRND: Tensor
    log_BRN: Tensor
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()


def memory_anchor_attention(
    q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor
) -> Tensor:
    """:func:`ranker.attention.dense_attention` in memory linear in the items, where a flash attention tells its
    denominators: on CPU, and on CUDA in half precision."""
    half_on_cuda = q_BHNQD.device.type == "cuda" and q_BHNQD.dtype in HALF
    if q_BHNQD.device.type != "cpu" and not half_on_cuda:
        return dense_attention(q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHND, past_v_BHND)
    q_BNQHD, k_BNSHD, v_BNSHD = (x.movedim(1, 3) for x in (q_BHNQD, k_BHNSD, v_BHNSD))
    read_BNQHD: Tensor = _Merged.apply(q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHND, past_v_BHND)
    return read_BNQHD.movedim(3, 1)


class _Merged(torch.autograd.Function):
    """Both parts and their merger."""

    @staticmethod
    def forward(
        ctx: Any, q_BNQHD: Tensor, k_BNSHD: Tensor, v_BNSHD: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor
    ) -> Tensor:
        """``(B, N, Q, H, D)``, what each query reads."""
        past = read_past(_as_heads(q_BNQHD), past_k_BHND, past_v_BHND)
        past_XR1 = past.log_BRN.transpose(1, 2).reshape(-1, past.log_BRN.shape[1], 1)
        own_XRC = _own_scores(q_BNQHD, k_BNSHD)
        log_XR1 = torch.logaddexp(past_XR1, own_XRC.logsumexp(-1, keepdim=True))
        own_XRC = (own_XRC - log_XR1).exp_().to(v_BNSHD.dtype)
        past_XRD = past.read_BRND.transpose(1, 2).flatten(0, 1) * (past_XR1 - log_XR1).exp_().to(v_BNSHD.dtype)
        read_BNQHD = torch.baddbmm(past_XRD, own_XRC, _flat(v_BNSHD)).view(q_BNQHD.shape)
        ctx.save_for_backward(
            q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHND, past_v_BHND, read_BNQHD, log_XR1, own_XRC, *past.tensors
        )
        ctx.numbers = past.numbers
        return read_BNQHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the five inputs."""
        g_BNQHD = gradients[0].contiguous()
        q_BNQHD, k_BNSHD, v_BNSHD, past_k, past_v, read_BNQHD, log_XR1, own_XRC, *more = ctx.saved_tensors
        log_BRN = log_XR1.view(len(q_BNQHD), -1, log_XR1.shape[1]).transpose(1, 2).contiguous()
        past = Past(_as_heads(read_BNQHD), log_BRN, tuple(more), ctx.numbers)
        to_q, to_past_k, to_past_v = past_backward(_as_heads(g_BNQHD), _as_heads(q_BNQHD), past_k, past_v, past)
        q_XRD, k_XCD, v_XCD, g_XRD, read_XRD = map(_flat, (q_BNQHD, k_BNSHD, v_BNSHD, g_BNQHD, read_BNQHD))
        delta_XR1 = (g_XRD * read_XRD).sum(-1, keepdim=True)
        scale = q_BNQHD.shape[-1] ** -0.5
        to_scores = own_XRC * torch.baddbmm(delta_XR1, g_XRD, v_XCD.transpose(1, 2), beta=-scale, alpha=scale)
        to_q_XRD = torch.baddbmm(to_q.transpose(1, 2).flatten(0, 1), to_scores, k_XCD)
        return (
            to_q_XRD.view(q_BNQHD.shape),
            (to_scores.transpose(1, 2) @ q_XRD).view(k_BNSHD.shape),
            (own_XRC.transpose(1, 2) @ g_XRD).view(v_BNSHD.shape),
            _over_queries(to_past_k, past_k),
            _over_queries(to_past_v, past_v),
        )


def read_past(q_BRND: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor) -> Past:
    """Flash attention of every query of an item over the memories, causal by items."""
    k_BRND, v_BRND = (_for_every_query(x, q_BRND) for x in (past_k_BHND, past_v_BHND))
    if q_BRND.device.type == "cpu":
        return Past(*aten._scaled_dot_product_flash_attention_for_cpu(q_BRND, k_BRND, v_BRND, 0.0, True))
    read, log, _, _, longest_q, longest_k, *random, _ = aten._scaled_dot_product_flash_attention(
        q_BRND, k_BRND, v_BRND, 0.0, True
    )
    return Past(read, log, tuple(random), (longest_q, longest_k))


def past_backward(
    g_BRND: Tensor, q_BRND: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor, past: Past
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, (B, R, N, D) each, of queries and of every query's copy of the memories, from that of what was read.

    ``past`` holds the *merged* output and denominators.
    """
    k_BRND, v_BRND = (_for_every_query(x, q_BRND) for x in (past_k_BHND, past_v_BHND))
    inputs = g_BRND, q_BRND, k_BRND, v_BRND, past.read_BRND, past.log_BRN
    if q_BRND.device.type == "cpu":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(*inputs, 0.0, True)
    else:
        found = aten._scaled_dot_product_flash_attention_backward(
            *inputs, None, None, *past.numbers, 0.0, True, *past.tensors
        )
    return found[0], found[1], found[2]


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


def _for_every_query(x_BHND: Tensor, q_BRND: Tensor) -> Tensor:
    """Memories (B, H, N, D) as (B, R, N, D)."""
    return x_BHND.repeat(1, q_BRND.shape[1] // x_BHND.shape[1], 1, 1)


def _over_queries(x_BRND: Tensor, like_BHND: Tensor) -> Tensor:
    """What all of an item's queries ask of a memory to change."""
    return x_BRND.unflatten(1, (-1, like_BHND.shape[1])).sum(1)

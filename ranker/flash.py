"""Memory-anchor attention in linear memory: flash attention over the past, a small block for the item itself.

The past is plain causal attention, once for every slot; what an item reads of itself is a product of S×S. Each gives
its part of the softmax with the logarithm of its denominator, and the two are merged by these. Backwards, the merged
output and denominator go to flash attention's own backward pass, as in ring attention (Liu et al. 2023): a part's
gradient needs nothing else of the other part.

Letters as in :mod:`ranker.attention`; R = B·H.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranker.attention import dense_attention, own_item_mask

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)


class Past(NamedTuple):
    """What flash attention over the past gives: output (R, Q, N, D), log denominators (R, Q, N) float32, and what its
    backward pass asks for besides."""

    read_RQND: Tensor
    log_RQN: Tensor
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()


def memory_anchor_attention(
    q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor
) -> Tensor:
    """:func:`ranker.attention.dense_attention` in memory linear in the items, where a flash attention tells its
    denominators: on CPU, and on CUDA in half precision."""
    half_on_cuda = q_BHNQD.device.type == "cuda" and q_BHNQD.dtype in HALF
    if q_BHNQD.device.type == "cpu" or half_on_cuda:
        merged: Tensor = _Merged.apply(q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHND, past_v_BHND)
        return merged
    return dense_attention(q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHND, past_v_BHND)


class _Merged(torch.autograd.Function):
    """Both parts and their merger."""

    @staticmethod
    def forward(
        ctx: Any, q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor
    ) -> Tensor:
        """``(B, H, N, Q, D)``, what each query reads."""
        past_k, past_v = past_k_BHND.contiguous(), past_v_BHND.contiguous()
        past = read_past(_slots_first(q_BHNQD), past_k, past_v)
        past_BHNQD, past_log_BHNQ = (_items_first(x, q_BHNQD) for x in (past.read_RQND, past.log_RQN))
        own_BHNQS = _own_scores(q_BHNQD, k_BHNSD)
        log_BHNQ = torch.logaddexp(past_log_BHNQ, own_BHNQS.logsumexp(-1))
        own_BHNQD = _shares(own_BHNQS, log_BHNQ, v_BHNSD.dtype) @ v_BHNSD
        read_BHNQD = past_BHNQD * (past_log_BHNQ - log_BHNQ).exp()[..., None].to(v_BHNSD.dtype) + own_BHNQD
        ctx.save_for_backward(q_BHNQD, k_BHNSD, v_BHNSD, past_k, past_v, read_BHNQD, log_BHNQ, *past.tensors)
        ctx.numbers = past.numbers
        return read_BHNQD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the five inputs."""
        (g_BHNQD,) = gradients
        q_BHNQD, k_BHNSD, v_BHNSD, past_k, past_v, read_BHNQD, log_BHNQ, *more = ctx.saved_tensors
        read = _slots_first(read_BHNQD), _slots_first(log_BHNQ)
        past = Past(*read, tuple(more), ctx.numbers)
        to_q, to_past_k, to_past_v = past_backward(_slots_first(g_BHNQD), _slots_first(q_BHNQD), past_k, past_v, past)
        own_BHNQS = _shares(_own_scores(q_BHNQD, k_BHNSD), log_BHNQ, v_BHNSD.dtype)
        delta_BHNQ1 = (g_BHNQD * read_BHNQD).sum(-1, keepdim=True)
        to_scores = own_BHNQS * (g_BHNQD @ v_BHNSD.transpose(-1, -2) - delta_BHNQ1) * q_BHNQD.shape[-1] ** -0.5
        return (
            _items_first(to_q, q_BHNQD) + to_scores @ k_BHNSD,
            to_scores.transpose(-1, -2) @ q_BHNQD,
            own_BHNQS.transpose(-1, -2) @ g_BHNQD,
            to_past_k.sum(1).view_as(past_k),
            to_past_v.sum(1).view_as(past_v),
        )


def read_past(q_RQND: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor) -> Past:
    """Flash attention of every slot's queries over the memories, causal by items."""
    k_RQND, v_RQND = (_for_every_slot(x, q_RQND) for x in (past_k_BHND, past_v_BHND))
    if q_RQND.device.type == "cpu":
        return Past(*aten._scaled_dot_product_flash_attention_for_cpu(q_RQND, k_RQND, v_RQND, 0.0, True))
    read, log, _, _, longest_q, longest_k, *random, _ = aten._scaled_dot_product_flash_attention(
        q_RQND, k_RQND, v_RQND, 0.0, True
    )
    return Past(read, log, tuple(random), (longest_q, longest_k))


def past_backward(
    g_RQND: Tensor, q_RQND: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor, past: Past
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, (R, Q, N, D) each, of queries and of every slot's copy of the memories, from that of what was read.

    ``past`` holds the *merged* output and denominators.
    """
    k_RQND, v_RQND = (_for_every_slot(x, q_RQND) for x in (past_k_BHND, past_v_BHND))
    inputs = g_RQND, q_RQND, k_RQND, v_RQND, past.read_RQND, past.log_RQN
    if q_RQND.device.type == "cpu":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(*inputs, 0.0, True)
    else:
        found = aten._scaled_dot_product_flash_attention_backward(
            *inputs, None, None, *past.numbers, 0.0, True, *past.tensors
        )
    return found[0], found[1], found[2]


def _own_scores(q_BHNQD: Tensor, k_BHNSD: Tensor) -> Tensor:
    """Float32 scores (B, H, N, Q, S) of an item's queries with its own slots."""
    scores_BHNQS = (q_BHNQD @ k_BHNSD.transpose(-1, -2)) * q_BHNQD.shape[-1] ** -0.5
    visible_QS = own_item_mask(k_BHNSD.shape[3], q_BHNQD.shape[3], q_BHNQD.device)
    return scores_BHNQS.to(torch.promote_types(scores_BHNQS.dtype, torch.float32)).masked_fill(~visible_QS, -torch.inf)


def _shares(scores_BHNQS: Tensor, log_BHNQ: Tensor, dtype: torch.dtype) -> Tensor:
    return (scores_BHNQS - log_BHNQ[..., None]).exp().to(dtype)


def _slots_first(x_BHNQ: Tensor) -> Tensor:
    """(B, H, N, Q, …) as (R, Q, N, …), each slot a sequence of items."""
    return x_BHNQ.transpose(2, 3).flatten(0, 1).contiguous()


def _items_first(x_RQN: Tensor, like_BHNQD: Tensor) -> Tensor:
    """The inverse of :func:`_slots_first`."""
    return x_RQN.unflatten(0, like_BHNQD.shape[:2]).transpose(2, 3)


def _for_every_slot(x_BHND: Tensor, q_RQND: Tensor) -> Tensor:
    """Memories (B, H, N, D) as (R, Q, N, D), without copies."""
    return x_BHND.flatten(0, 1).unsqueeze(1).expand(q_RQND.shape)

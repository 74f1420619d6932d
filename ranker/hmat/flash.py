"""Memory-anchor attention in linear memory: flash attention over the past, a small block for the item itself.

The past is plain causal attention, once for every slot; what an item reads of itself is a product of S×S. Each gives
its part of the softmax with the logarithm of its denominator, and the two are merged by these. Backwards, the merged
output and denominator go to flash attention's own backward pass, as in ring attention (Liu et al. 2023): a part's
gradient needs nothing else of the other part. That is on CPU; on CUDA :mod:`ranker.hmat.flex` does both parts at once.

Nothing is laid out anew on the way: the own item is one product over all heads, of which only what lies on the
diagonal counts.

Letters as in :mod:`ranker.hmat.attention`; R = Q·H what queries in an item, C = S·H what it sees of itself, X = B·N.
"""

from typing import Any

import torch
from torch import Tensor

from ranker.hmat.attention import dense_attention, own_item_mask
from ranker.hmat.partial_attention_cpu import Past, past_backward, read_past


def memory_anchor_attention(
    q_BHNQD: Tensor,
    k_BHNSD: Tensor,
    v_BHNSD: Tensor,
    past_k_BHMD: Tensor,
    past_v_BHMD: Tensor,
    seen_BN: Tensor | None = None,
) -> Tensor:
    """``(B, H, N, Q, D)``: :func:`ranker.hmat.attention.dense_attention` in memory linear in the items, on CPU and on
    CUDA; there in single or half precision, which its kernels know."""
    inputs = q_BHNQD, k_BHNSD, v_BHNSD, past_k_BHMD, past_v_BHMD
    device = q_BHNQD.device
    if device.type == "cuda" and q_BHNQD.dtype != torch.float64:
        from ranker.hmat import flex  # brings torch's compiler, seconds that processes without CUDA need not spend

        seen_BN = seen_by_place(q_BHNQD, past_k_BHMD) if seen_BN is None else seen_BN
        return flex.read(*inputs, seen_BN.contiguous())
    if device.type != "cpu":
        return dense_attention(*inputs, seen_BN=seen_BN)
    q_BNQHD, k_BNSHD, v_BNSHD = (x.movedim(1, 3) for x in (q_BHNQD, k_BHNSD, v_BHNSD))
    read_BNQHD: Tensor = _Merged.apply(q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHMD, past_v_BHMD, seen_BN)
    return read_BNQHD.movedim(3, 1)


def seen_by_place(q_BHNQD: Tensor, past_k_BHMD: Tensor) -> Tensor:
    """Int64 ``(B, N)``: the last item sees all rows of the memory, each before it one less."""
    batch, items, rows = len(q_BHNQD), q_BHNQD.shape[2], past_k_BHMD.shape[2]
    return torch.arange(rows - items, rows, device=q_BHNQD.device).expand(batch, items)


class _Merged(torch.autograd.Function):
    """Both parts and their merger."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BNQHD: Tensor,
        k_BNSHD: Tensor,
        v_BNSHD: Tensor,
        past_k_BHMD: Tensor,
        past_v_BHMD: Tensor,
        seen_BN: Tensor | None,
    ) -> Tensor:
        """``(B, N, Q, H, D)``, what each query reads."""
        past = read_past(q_BNQHD, past_k_BHMD, past_v_BHMD, seen_BN)
        past_XR1 = past.log_BNQH.flatten(0, 1).flatten(1).unsqueeze(-1)
        own_XRC = _own_scores(q_BNQHD, k_BNSHD)
        log_XR1 = torch.logaddexp(past_XR1, own_XRC.logsumexp(-1, keepdim=True))
        own_XRC = (own_XRC - log_XR1).exp_().to(v_BNSHD.dtype)
        past_XRD = _flat(past.read_BNQHD) * (past_XR1 - log_XR1).exp_().to(v_BNSHD.dtype)
        read_BNQHD = torch.baddbmm(past_XRD, own_XRC, _flat(v_BNSHD)).view(q_BNQHD.shape)
        ctx.seen_BN, inputs = seen_BN, (q_BNQHD, k_BNSHD, v_BNSHD, past_k_BHMD, past_v_BHMD)
        ctx.save_for_backward(*inputs, read_BNQHD, log_XR1, own_XRC)
        return read_BNQHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the five inputs that have any."""
        g_BNQHD = gradients[0].contiguous()
        q_BNQHD, k_BNSHD, v_BNSHD, past_k, past_v, read_BNQHD, log_XR1, own_XRC = ctx.saved_tensors
        past = Past(read_BNQHD, log_XR1.view(q_BNQHD.shape[:4]))
        to_q, to_past_k, to_past_v = past_backward(g_BNQHD, q_BNQHD, past_k, past_v, past, ctx.seen_BN)
        q_XRD, k_XCD, v_XCD, g_XRD, read_XRD = map(_flat, (q_BNQHD, k_BNSHD, v_BNSHD, g_BNQHD, read_BNQHD))
        delta_XR1 = (g_XRD * read_XRD).sum(-1, keepdim=True)
        scale = q_BNQHD.shape[-1] ** -0.5
        to_scores = own_XRC * torch.baddbmm(delta_XR1, g_XRD, v_XCD.transpose(1, 2), beta=-scale, alpha=scale)
        to_q_XRD = torch.baddbmm(_flat(to_q), to_scores, k_XCD)
        return (
            to_q_XRD.view(q_BNQHD.shape),
            (to_scores.transpose(1, 2) @ q_XRD).view(k_BNSHD.shape),
            (own_XRC.transpose(1, 2) @ g_XRD).view(v_BNSHD.shape),
            to_past_k,
            to_past_v,
            None,
        )


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

"""Memory-anchor attention (paper: Hierarchical Memory-Anchor Transformer).

A query in item ``i`` sees, under one softmax,

- the tokens of its own item: details see details, the anchor sees the details and itself;
- the memory of each item before it in time: its anchor's key and value with its feedback;
- one null memory, so that the first item has a past too.

Details of the past are never visible. The null memory comes first, so that where every item has a time of its own item
``i`` sees exactly rows ``0 … i`` of the memory, which is plain causal attention, one a slot. Items of one time see
nothing of each other: item ``i`` then sees rows ``0 … seen[i]``, where ``seen[i]`` items are of an earlier time.

Letters: B windows, H heads, N items, S slots of an item (its anchor is the last), Q the last Q slots, which
query (S, or 1 for the anchor alone), D head, M rows of memory.
"""

import torch
from torch import Tensor


def with_null(null_HD: Tensor, memory_BHND: Tensor) -> Tensor:
    """Rows of memory, ``(B, H, M, D)``: row 0 is the null memory, row m the memory of item m-1."""
    batch, heads, _, head = memory_BHND.shape
    null_BH1D = null_HD[None, :, None].expand(batch, heads, 1, head).to(memory_BHND.dtype)
    return torch.cat([null_BH1D, memory_BHND], 2)


def dense_attention(
    q_BHNQD: Tensor,
    k_BHNSD: Tensor,
    v_BHNSD: Tensor,
    past_k_BHMD: Tensor,
    past_v_BHMD: Tensor,
    *,
    seen_BN: Tensor | None = None,
    causal: bool = True,
) -> Tensor:
    """What each query reads, ``(B, H, N, Q, D)``; scores are (M+S) a query instead of N·S.

    Queries and keys are rotated. Of the past, M rows, item i sees those up to row ``seen_BN[:, i]``, int64. Without
    that the last item sees all rows, each item before it one row less; unless ``causal``, all of them see all rows, as
    candidates for one place do.
    """
    items, queries, head = q_BHNQD.shape[2:]
    rows = past_k_BHMD.shape[2]
    q_BHNQD = q_BHNQD * head**-0.5
    past_BHNQM = _by_item(q_BHNQD, past_k_BHMD.transpose(-1, -2))
    own_BHNQS = q_BHNQD @ k_BHNSD.transpose(-1, -2)
    if seen_BN is not None:
        future_BNM = torch.arange(rows, device=q_BHNQD.device) > seen_BN[..., None]
        past_BHNQM = past_BHNQM.masked_fill(future_BNM[:, None, :, None], -torch.inf)
    elif causal:
        future_NM = ~torch.ones(items, rows, dtype=torch.bool, device=q_BHNQD.device).tril(rows - items)
        past_BHNQM = past_BHNQM.masked_fill(future_NM[:, None], -torch.inf)
    own_BHNQS = own_BHNQS.masked_fill(~own_item_mask(k_BHNSD.shape[3], queries, q_BHNQD.device), -torch.inf)
    weights = torch.cat([past_BHNQM, own_BHNQS], -1).softmax(-1)
    past_BHNQM, own_BHNQS = weights.split([rows, weights.shape[-1] - rows], -1)
    return _by_item(past_BHNQM, past_v_BHMD) + own_BHNQS @ v_BHNSD


def own_item_mask(slots: int, queries: int, device: torch.device) -> Tensor:
    """Bool ``(Q, S)``, true where a query may look in its own item: only the anchor sees the anchor."""
    visible_SS = torch.ones(slots, slots, dtype=torch.bool, device=device)
    visible_SS[:-1, -1] = False
    return visible_SS[slots - queries :]


def _by_item(left_BHNQX: Tensor, right_BHXY: Tensor) -> Tensor:
    """``left @ right`` with all queries of a window in one product."""
    return (left_BHNQX.flatten(2, 3) @ right_BHXY).unflatten(2, left_BHNQX.shape[2:4])

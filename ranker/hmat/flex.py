"""Memory-anchor attention on CUDA: one call of flex attention over the memories and the slots of all items.

A query sees the first memories and a run of its own item's slots, so that three integers a query say the mask. Of the
scores flex attention (Dong et al. 2024) computes blocks, and none of those in which nothing is seen. Which these are
follows from the integers; nothing is ever as large as all queries by all keys.

Letters as in :mod:`ranker.hmat.attention`; L = N·Q queries, K = M + N·S keys, the memories first; I and J blocks of
them, U = :data:`BLOCK`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # flex attention's own
KINDS = 64  # of inputs, each with kernels of its own: all slots or anchors, one window or more, gradients or none
LEAST_HEAD = 16  # tl.dot takes no less: torch._inductor.kernel.flex.flex_attention.flex_attention


# Uncompiled it would compute the scores of all pairs; one kernel is made for all lengths, since batches differ.
compiled = torch.compile(flex_attention, dynamic=True, fullgraph=True)


def read(
    q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHMD: Tensor, past_v_BHMD: Tensor, seen_BN: Tensor
) -> Tensor:
    """``(B, H, N, Q, D)``: :func:`ranker.hmat.attention.dense_attention`, with ``seen_BN``, in memory linear in items
    and memories. The first calls take a while, in which kernels are made."""
    items, queries, head = q_BHNQD.shape[2:]
    q_BHLD = q_BHNQD.flatten(2, 3)
    k_BHKD, v_BHKD = (torch.cat([m, x.flatten(2, 3)], 2) for m, x in ((past_k_BHMD, k_BHNSD), (past_v_BHMD, v_BHNSD)))
    if head < LEAST_HEAD:
        q_BHLD = q_BHLD * (LEAST_HEAD / head) ** 0.5  # scores are divided by the root of the size
        q_BHLD, k_BHKD, v_BHKD = (F.pad(x, (0, LEAST_HEAD - head)) for x in (q_BHLD, k_BHKD, v_BHKD))
    blocks = visible_blocks(seen_BN, queries, k_BHNSD.shape[3], past_k_BHMD.shape[2])
    with torch.compiler.config.patch(recompile_limit=KINDS):  # type: ignore[attr-defined]
        read_BHLD: Tensor = compiled(q_BHLD, k_BHKD, v_BHKD, block_mask=blocks)
    return read_BHLD[..., :head].unflatten(2, (items, queries))


def visible_blocks(seen_BN: Tensor, queries: int, slots: int, memories: int) -> BlockMask:
    """What the last ``queries`` slots of every item see: memories up to row ``seen_BN``, int64, and in their own item
    what :func:`ranker.hmat.attention.own_item_mask` shows."""
    items, device = seen_BN.shape[1], seen_BN.device
    query_L = torch.arange(items * queries, device=device)
    last_BL = seen_BN.repeat_interleave(queries, 1)
    first_L = memories + query_L // queries * slots
    stop_L = first_L + slots - 1 + (query_L % queries == queries - 1)

    def visible(b: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (key >= first_L[query]) & (key < stop_L[query])
        return (key <= last_BL[b, query]) | own

    keys = memories + items * slots
    begin_J = torch.arange(0, keys, BLOCK, device=device)
    begin_I = torch.arange(0, len(query_L), BLOCK, device=device)
    end_I = (begin_I + BLOCK - 1).clamp(max=len(query_L) - 1)
    last_BIU = F.pad(last_BL, (0, -len(query_L) % BLOCK), value=-1).unflatten(1, (-1, BLOCK))
    past_BIJ = begin_J <= last_BIU.amax(2, keepdim=True)
    full_BIJ = begin_J + BLOCK - 1 <= last_BIU.amin(2, keepdim=True)
    own_IJ = (begin_J + BLOCK > first_L[begin_I, None]) & (begin_J < stop_L[end_I, None])
    listed = *_listed((past_BIJ | own_IJ) & ~full_BIJ), *_listed(full_BIJ)
    return BlockMask.from_kv_blocks(*listed, BLOCK, visible, (len(query_L), keys))


def _listed(blocks_BIJ: Tensor) -> tuple[Tensor, Tensor]:
    """Of every row how many of its blocks are true, and which, these first; int32, the same for all heads."""
    order_BIJ = blocks_BIJ.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return blocks_BIJ.sum(-1, dtype=torch.int32).unsqueeze(1), order_BIJ.to(torch.int32).unsqueeze(1)

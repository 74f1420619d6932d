"""Flash attention over the memories on CPU, with the logarithms of its denominators, to be merged with other keys'.

All slots of an item ask the same memories in one product. The operators are torch's own, not public: what is public on
CPU gives no denominators (scaled_dot_product_attention) or no gradients (flex_attention).

The items go in stretches. What came before a stretch all of its queries see; of its own memories each item sees those
that a mask shows. So little more is computed than is seen, and no memory is copied for every slot. Where items of one
time may not see each other, the mask begins at the first memory that one item of the stretch does not see.

Letters as in :mod:`ranker.hmat.attention`; L queries of a stretch, all slots of all its items.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

STRETCH = 128  # items: wider ones compute more that the mask hides, narrower ones take more calls

aten = torch.ops.aten

Part = tuple[
    slice, bool, Tensor | None
]  # of the memories, whether causal, what is added to scores (B or 1, 1, L, rows)


class Past(NamedTuple):
    """What every query reads (B, N, Q, H, D), and the logarithms of its denominators (B, N, Q, H), float32 at least."""

    read_BNQHD: Tensor
    log_BNQH: Tensor


def merged(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One softmax from parts of it: of what each reads ``(…, D)`` and its logarithms ``(…)``, those of all."""
    (read, log), *others = parts
    for more, more_log in others:
        both = torch.logaddexp(log, more_log)
        read = torch.lerp(read, more, (more_log - both).exp_().unsqueeze(-1).to(read.dtype))
        log = both
    return read, log


def read_past(q_BNQHD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, seen_BN: Tensor | None = None) -> Past:
    """What every query reads of the memories: item i those up to row ``seen_BN[:, i]``, int64; without that the last
    item all, each before it one less."""
    reads, logs = [], []
    for items, parts in _stretches(q_BNQHD, k_BHMD.shape[2], seen_BN):
        q_BHLD = _packed(q_BNQHD[:, items])
        read_BHLD, log_BHL = merged(
            aten._scaled_dot_product_flash_attention_for_cpu(
                q_BHLD, k_BHMD[:, :, rows], v_BHMD[:, :, rows], 0.0, causal, attn_mask=mask
            )
            for rows, causal, mask in parts
        )
        reads.append(read_BHLD.transpose(1, 2))
        logs.append(log_BHL.transpose(1, 2))
    shape = q_BNQHD.shape
    return Past(torch.cat(reads, 1).view(shape), torch.cat(logs, 1).view(shape[:4]))


def past_backward(
    g_BNQHD: Tensor, q_BNQHD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, past: Past, seen_BN: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, of their shapes, from that of what was read; ``past`` holds output and
    denominators *merged* with whatever else the softmax is over."""
    to_q, to_k_BHMD, to_v_BHMD = [], torch.zeros_like(k_BHMD), torch.zeros_like(v_BHMD)
    for items, parts in _stretches(q_BNQHD, k_BHMD.shape[2], seen_BN):
        g_BHLD, q_BHLD, read_BHLD = (_packed(x[:, items]) for x in (g_BNQHD, q_BNQHD, past.read_BNQHD))
        log_BHL = past.log_BNQH[:, items].flatten(1, 2).transpose(1, 2).contiguous()
        to_q_BHLD = []
        for rows, causal, mask in parts:
            inputs = g_BHLD, q_BHLD, k_BHMD[:, :, rows], v_BHMD[:, :, rows], read_BHLD, log_BHL
            more_q, more_k, more_v = aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *inputs, 0.0, causal, attn_mask=mask
            )
            to_q_BHLD.append(more_q)
            to_k_BHMD[:, :, rows] += more_k
            to_v_BHMD[:, :, rows] += more_v
        to_q.append(reduce(torch.add, to_q_BHLD).transpose(1, 2))
    return torch.cat(to_q, 1).view(q_BNQHD.shape), to_k_BHMD, to_v_BHMD


def _stretches(q_BNQHD: Tensor, memories: int, seen_BN: Tensor | None) -> Iterator[tuple[slice, list[Part]]]:
    """Items that go together, and the parts of the memories that they see."""
    if seen_BN is not None:
        yield from _masked_stretches(q_BNQHD, seen_BN)
        return
    items, queries = q_BNQHD.shape[1:3]
    plain = queries == 1  # causal attention as ever
    width = items if plain else -(-items // -(-items // STRETCH))  # stretches of about one length
    mask = None if plain else _future(width, queries, q_BNQHD)
    seen = memories - items
    for start in range(0, items, width):
        stop = min(start + width, items)
        shown = None if mask is None else mask[..., : (stop - start) * queries, : stop - start]
        own: Part = (slice(seen + start, seen + stop), plain, shown)
        yield slice(start, stop), [(slice(0, seen + start), False, None), own] if seen + start else [own]


def _masked_stretches(q_BNQHD: Tensor, seen_BN: Tensor) -> Iterator[tuple[slice, list[Part]]]:
    """The same where every item says how far it sees. The row that all see last is of the masked part: a query that
    sees nothing of a part would have no softmax there."""
    items, queries = q_BNQHD.shape[1:3]
    width = -(-items // -(-items // STRETCH))
    for start in range(0, items, width):
        stretch = slice(start, min(start + width, items))
        least, most = (int(end) for end in seen_BN[:, stretch].aminmax())
        future_BNM = torch.arange(least, most + 1, device=seen_BN.device) > seen_BN[:, stretch, None]
        mask_BNM = torch.zeros(future_BNM.shape, dtype=q_BNQHD.dtype).masked_fill_(future_BNM, -torch.inf)
        own: Part = (slice(least, most + 1), False, mask_BNM.repeat_interleave(queries, 1)[:, None])
        yield stretch, [(slice(0, least), False, None), own] if least else [own]


def _future(items: int, queries: int, like: Tensor) -> Tensor:
    """``(1, 1, items · queries, items)``: minus infinity where a memory is of a later item than the query."""
    item_L = torch.arange(items, device=like.device).repeat_interleave(queries)
    future_LM = torch.arange(items, device=like.device) > item_L[:, None]
    return torch.zeros(future_LM.shape, dtype=like.dtype).masked_fill_(future_LM, -torch.inf)[None, None]


def _packed(x_BNQHD: Tensor) -> Tensor:
    """(B, N, Q, H, D) as (B, H, L, D), without a copy."""
    return x_BNQHD.flatten(1, 2).transpose(1, 2)

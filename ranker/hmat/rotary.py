"""Rotary positions: the hierarchical form of the HMAT (item and slot apart) and the plain one of a flat stream.

A head's ``D`` dimensions form ``F = D/2`` pairs of neighbours, each turned by an angle. Hierarchical RoPE gives
the first half of the pairs to the item's index in the window and the second half to the slot within the item, so
a score depends on how many items apart two tokens are and on how many slots, independently.

Letters: N items, S slots of an item (its anchor is the last), L positions of a stream, D head, F = D/2, f = D/4.
A rotation is complex64, ``(…positions, F)``: a pair times it, as complex numbers, is the pair turned.
"""

import torch
from torch import Tensor


def hierarchical_rotation(items: int, slots: int, head: int, base: float, device: torch.device) -> Tensor:
    """Rotation ``(N, S, F)``: pairs below F/2 turn with the item's index, the others with the slot."""
    frequency_f = _frequencies(head // 4, base, device)
    item_NSf = (torch.arange(items, device=device)[:, None, None] * frequency_f).expand(-1, slots, -1)
    slot_NSf = (torch.arange(slots, device=device)[None, :, None] * frequency_f).expand(items, -1, -1)
    angle_NSF = torch.cat([item_NSf, slot_NSf], -1)
    return torch.polar(torch.ones_like(angle_NSF), angle_NSF)


def plain_rotation(length: int, head: int, base: float, device: torch.device) -> Tensor:
    """Rotation ``(L, F)`` by the position in one stream (Su et al., RoFormer)."""
    angle_LF = torch.arange(length, device=device)[:, None] * _frequencies(head // 2, base, device)
    return torch.polar(torch.ones_like(angle_LF), angle_LF)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the heads of ``x`` (…positions, H, D) by ``rotation`` (…positions, F); same shape and dtype.

    In single precision or better whatever the dtype of ``x``: positions far out need it.
    """
    precise = x if x.dtype == torch.float64 else x.float()
    turned = torch.view_as_complex(precise.unflatten(-1, (-1, 2))) * rotation[..., None, :]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def _frequencies(count: int, base: float, device: torch.device) -> Tensor:
    return base ** (-torch.arange(count, device=device, dtype=torch.float32) / count)

"""What of a window an item, or a position of a stream of several an item, may see.

Letters: B windows, N items, S positions of an item, L = N·S.
"""

import torch
from torch import Tensor


def past_of(seen_BN: Tensor) -> Tensor:
    """Bool ``(B, N, N)``: item i sees item j if that is one of the first ``seen_BN[:, i]``."""
    return torch.arange(seen_BN.shape[1], device=seen_BN.device) < seen_BN[..., None]


def visible_positions(seen_BN: Tensor, slots: int) -> Tensor:
    """Bool ``(B, L, L)``: a position sees all ``slots`` of the first ``seen`` items, and its own item up to itself."""
    position_L = torch.arange(seen_BN.shape[1] * slots, device=seen_BN.device)
    item_L = position_L // slots
    earlier_BLL = item_L < seen_BN.repeat_interleave(slots, 1)[..., None]
    own_LL = (item_L == item_L[:, None]) & (position_L <= position_L[:, None])
    return earlier_BLL | own_LL

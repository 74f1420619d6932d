"""Training in less memory: what a stretch of positions computes is not kept, but computed again in the backward pass.

In the HMAT a stretch of items needs nothing of other items but their memories, so that all of a layer can be done in
stretches, attention too (our addition to the paper); in the flat transformer every token is read by all later ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def computed(compute: Callable[[], Tensor], *, again: bool) -> Tensor:
    """What ``compute`` gives, of which nothing is kept if it is to be computed ``again`` in the backward pass."""
    found: Tensor = checkpoint(compute, use_reentrant=False) if again else compute()
    return found


def in_stretches(compute: Callable[[int, int], Tensor], length: int, step: int | None) -> Tensor:
    """``(B, length, …)`` of what ``compute(start, stop)`` gives, ``step`` positions at once; without a step all at
    once, and kept."""
    if step is None:
        return compute(0, length)
    bounds = ((start, min(start + step, length)) for start in range(0, length, step))
    return torch.cat([checkpoint(compute, *stretch, use_reentrant=False) for stretch in bounds], 1)

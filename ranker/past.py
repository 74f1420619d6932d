"""What flash attention over the memories gives, on CPU (:mod:`ranker.past_cpu`) and CUDA (:mod:`ranker.past_cuda`)."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor


class Past(NamedTuple):
    """What every query reads (B, N, Q, H, D), the logarithms of the denominators (B, N, Q, H) float32 or better, and
    what CUDA's backward pass asks for besides."""

    read_BNQHD: Tensor
    log_BNQH: Tensor
    random: tuple[Tensor, ...] = ()
    longest: tuple[int, ...] = ()


def merged(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One softmax from parts of it: of what each reads ``(…, D)`` and its logarithms ``(…)``, those of all."""
    if len(parts) == 1:
        return parts[0]
    log = reduce(torch.logaddexp, (own_log for _, own_log in parts))
    weighted = (read * (own_log - log).exp_().unsqueeze(-1).to(read.dtype) for read, own_log in parts)
    return reduce(torch.add, weighted), log

"""Attention over the memories alone, with the logarithms of its denominators, to be merged with that of other keys."""

from collections.abc import Iterable
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


def merged(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One softmax from parts of it: of what each reads ``(…, D)`` and its logarithms ``(…)``, those of all."""
    (read, log), *others = parts
    for more, more_log in others:
        both = torch.logaddexp(log, more_log)
        read = torch.lerp(read, more, (more_log - both).exp_().unsqueeze(-1).to(read.dtype))
        log = both
    return read, log

"""What workers of one training tell each other; each function is a plain pass-through where there is one worker.

Every worker calls the same functions in the same order, on CPU over gloo, on GPU over NCCL.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank_and_size() -> tuple[int, int]:
    """This worker's number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def total(x: Tensor) -> Tensor:
    """The sum of ``x`` over the workers, of its shape, in place; ``x`` itself where there is one."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Set every gradient to its mean over the workers; one that is missing counts as zero."""
    if not dist.is_initialized():
        return
    trained = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    total(flat).div_(dist.get_world_size())
    for p, gradient in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        p.grad = gradient.view_as(p)


def agree(tensors: Iterable[Tensor]) -> None:
    """Overwrite ``tensors`` with those of worker 0."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def from_fullest(x_MD: Tensor, rows: int) -> Tensor:
    """``x_MD`` (M, D), in place, of the worker that has the most ``rows`` (the first of several), on every worker."""
    if dist.is_initialized():
        counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=x_MD.device)
        counts[dist.get_rank()] = rows
        dist.broadcast(x_MD, src=int(total(counts).argmax()))
    return x_MD

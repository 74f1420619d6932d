"""The optimisers of a ranker: AdamW, and for tables of items an Adam that touches no row but those of the step.

A table of millions of rows has a gradient of the thousands of rows that a batch names, a sparse one. What a step does
with it, its sum over the workers included, takes time by these rows: moments and decay of a row stand still until a
batch names it again (torch's SparseAdam).

Letters: U rows that a step touches, E width.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.config import RankerConfig


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """The tables ``(rows, width)`` of a model that have sparse gradients."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse]


class Optimisers:
    """Both as one; ``by_name`` has the one or two that there are.

    Args:
        model: alone or wrapped by DistributedDataParallel, which must leave the sparse tables alone.
        config: of the ranker; its decay is of matrices and tables alone.
    """

    def __init__(self, model: nn.Module, config: RankerConfig) -> None:
        self.config, self.tables = config, sparse_tables(model)
        sparse = {id(table) for table in self.tables}
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        dense = [p for p in self.parameters if id(p) not in sparse]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in dense if p.dim() >= 2]},
            {"params": [p for p in dense if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.by_name: dict[str, torch.optim.Optimizer] = {
            "optimiser": torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        }
        if self.tables:
            self.by_name["tables"] = torch.optim.SparseAdam(self.tables, lr=config.learning_rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimiser in self.by_name.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """One update by the gradients, clipped together, at a learning rate."""
        for table in self.tables:
            assert table.grad is not None  # of no row at least: every batch asks the table
            table.grad = mean_over_workers(table.grad)
        self._clip()
        for table in self.tables:
            rows_U = table.grad.indices()[0]  # type: ignore[union-attr]
            table.data[rows_U] *= 1 - rate * self.config.weight_decay
        for optimiser in self.by_name.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()

    def _clip(self) -> None:
        found = [p.grad for p in self.parameters if p.grad is not None]
        gradients = [gradient._values() if gradient.is_sparse else gradient for gradient in found]
        norm = nn.utils.get_total_norm(gradients)
        scale = (self.config.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)


def mean_over_workers(gradient: Tensor) -> Tensor:
    """The mean of all workers' sparse gradients ``(I, E)``, coalesced, the same bits in each.

    They gather the rows of all, as many places as the longest has, since NCCL sums no sparse tensors.
    """
    gradient = gradient.coalesce()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return gradient
    size = dist.get_world_size()
    rows_U, values_UE = gradient.indices()[0], gradient.values()
    counts = [int(count) for count in _gathered(rows_U.new_tensor(len(rows_U)))]
    missing = max(counts) - len(rows_U)
    padded = F.pad(rows_U, (0, missing)), F.pad(values_UE, (0, 0, 0, missing))
    rows_U, values_UE = (
        torch.cat([some[:count] for some, count in zip(_gathered(x), counts, strict=True)]) for x in padded
    )
    return torch.sparse_coo_tensor(rows_U[None], values_UE / size, gradient.shape, check_invariants=False).coalesce()


def _gathered(tensor: Tensor) -> list[Tensor]:
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor)
    return found

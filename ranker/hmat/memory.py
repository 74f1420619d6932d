"""What the HMAT keeps of histories to score candidates against.

Letters: B users, N items remembered, M = N+1 rows of memory, H heads, D head, X numbers of a user's taste.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What is kept of histories of N items: keys and values of every layer, (B, H, M, D) each, and what the memory of
    taste, if there is one, knows of the users, (B, M, X)."""

    layers: list[tuple[Tensor, Tensor]]
    taste: Tensor | None = None

    @property
    def items(self) -> int:
        """N, the items remembered."""
        return self.layers[0][0].shape[2] - 1

    def to(self, device: torch.device) -> "Memory":
        """The memories on ``device``."""
        taste = None if self.taste is None else self.taste.to(device)
        return Memory([(keys.to(device), values.to(device)) for keys, values in self.layers], taste)

    @property
    def nbytes(self) -> int:
        """Bytes of all B memories."""
        taste = 0 if self.taste is None else self.taste.nbytes
        return taste + sum(tensor.nbytes for layer in self.layers for tensor in layer)

"""Memories as bytes, one a user, and back: what a serving process loads.

A memory is float32, little-endian, in C order, of shape (layers, 2, heads, rows, head): keys, then values, of every
layer; rows are the null memory and then the remembered items, oldest first. Where the ranker has a memory of taste, the
numbers that say the user's taste after all of them follow.

Letters as in :mod:`ranker.hmat.memory`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranker.config import RankerConfig
from ranker.hmat.memory import Memory


def layout(config: RankerConfig) -> dict[str, Any]:
    """What one needs to know of a memory's bytes beside the number of its items."""
    return {
        "dtype": "<f4",
        "axes": ["layer", "key or value", "head", "row", "dimension"],
        "shape": [config.layers, 2, config.heads, "items + 1", config.dim // config.heads],
        "rows": "the null memory, then one an item, oldest first",
        "then": None if config.collaborative is None else "the user's taste after all items, to the end",
    }


def pack(memory: Memory, items_B: Sequence[int]) -> list[bytes]:
    """Each memory alone, of its first ``items_B`` items; what was padding is not among them."""
    stacked = torch.stack([torch.stack(layer, 1) for layer in memory.layers], 1)  # B, layers, 2, H, M, D
    whole = stacked.float().cpu().numpy().astype("<f4")
    rows = [np.ascontiguousarray(one[..., : items + 1, :]).tobytes() for one, items in zip(whole, items_B, strict=True)]
    if memory.taste is None:
        return rows
    taste = memory.taste.float().cpu().numpy().astype("<f4")
    return [row + one[items].tobytes() for row, one, items in zip(rows, taste, items_B, strict=True)]


def unpack(rows: Sequence[bytes], items_B: Sequence[int], config: RankerConfig) -> tuple[Memory, Tensor]:
    """The memories together, padded at the end, and how many items each is of, int64 ``(B,)``: the place of a candidate
    that comes next, see :meth:`ranker.hmat.model.HMAT.score`. Of users' taste it is the last one at every place."""
    heads, head, most = config.heads, config.dim // config.heads, max(items_B)
    whole = np.zeros((len(rows), config.layers, 2, heads, most + 1, head), np.float32)
    taste = []
    for one, row, items in zip(whole, rows, items_B, strict=True):
        numbers = config.layers * 2 * heads * (items + 1) * head
        one[..., : items + 1, :] = np.frombuffer(row, "<f4", numbers).reshape(one[..., : items + 1, :].shape)
        taste.append(np.frombuffer(row, "<f4", offset=4 * numbers))
    stacked = torch.from_numpy(whole)
    layers = [(stacked[:, layer, 0], stacked[:, layer, 1]) for layer in range(config.layers)]
    taste_BMX = None
    if config.collaborative is not None:
        taste_BMX = torch.from_numpy(np.stack(taste)).unsqueeze(1).expand(-1, most + 1, -1)
    return Memory(layers, taste_BMX), torch.tensor(items_B)

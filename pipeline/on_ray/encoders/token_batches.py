"""Tokenised texts in batches of one width, which each text's own length decides and no neighbour.

Letters: N texts, T tokens of a batch's width.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 16  # tokens

Places = NDArray[np.intp]
Batch = dict[str, NDArray[Any]]  # what a model takes, arrays of N rows each


def token_batches(
    tokens: Mapping[str, list[list[int]]], tokenizer: Any, batch_size: int, step: int
) -> Iterator[tuple[Places, Batch]]:
    """Batches of int64 ``(N, T)`` with the places of their rows in ``tokens``, the shortest texts first.

    Args:
        tokens: by feature a list of numbers a text, neither padded nor made a tensor.
        tokenizer: the one they are of; they are padded as it pads.
        batch_size: rows of a batch at most.
        step: T is the next multiple of it.
    """
    rows = len(tokens["input_ids"])
    steps_N = -(-np.fromiter(map(len, tokens["input_ids"]), np.int64, rows) // step)
    order_N = np.argsort(steps_N, kind="stable")
    for group in np.split(order_N, np.flatnonzero(np.diff(steps_N[order_N])) + 1):
        for first in range(0, len(group), batch_size):
            places = group[first : first + batch_size]
            width = int(steps_N[places[0]]) * step
            yield (
                places,
                {
                    name: _padded([lists[place] for place in places], width, _padding(name, tokenizer), tokenizer)
                    for name, lists in tokens.items()
                },
            )


def _padding(name: str, tokenizer: Any) -> int:
    return {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}.get(name, 0)


def _padded(lists: list[list[int]], width: int, padding: int, tokenizer: Any) -> NDArray[np.int64]:
    lengths_N1 = np.fromiter(map(len, lists), np.int64, len(lists))[:, None]
    place_T, x_NT = np.arange(width), np.full((len(lists), width), padding, np.int64)
    there_NT = place_T >= width - lengths_N1 if tokenizer.padding_side == "left" else place_T < lengths_N1
    x_NT[there_NT] = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths_N1.sum()))
    return x_NT

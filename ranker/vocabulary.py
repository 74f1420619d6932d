"""Which items have a vector of their own in a ranker: those that training met often enough.

Letters: P counted events, I items.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ranker.config import ItemIdConfig
from ranker.windows import flat

LEAST_MERGED = 2**20  # rows


def item_counts(windows: pa.Table) -> pa.Table:
    """``hash`` and ``events``, both int64, of what the loss masks of windows count: a row an item."""
    hash_P = flat(windows["item_hashes"])[flat(windows["loss_mask"]).astype(bool)]
    hash_I, events_I = np.unique(hash_P, return_counts=True)
    return pa.table({"hash": hash_I.astype(np.int64), "events": events_I.astype(np.int64)})


def vocabulary(counts: Iterable[pa.Table], config: ItemIdConfig) -> Tensor:
    """``(I,)`` int64, ascending: the hashes of the items that have a vector, from :func:`item_counts` of all windows.

    If there are more than ``config.max_rows``, those with the most events, and of equal ones those of the least hash.
    Memory is of all items that occur, 16 bytes each, twice over.
    """
    merged, waiting = _merged([]), list[pa.Table]()
    for part in counts:
        waiting.append(part)
        if sum(map(len, waiting)) > max(LEAST_MERGED, len(merged)):
            merged, waiting = _merged([merged, *waiting]), []
    merged = _merged([merged, *waiting])
    often = merged.filter(pc.greater_equal(merged["events"], config.min_events))
    if len(often) > config.max_rows:
        often = often.sort_by([("events", "descending"), ("hash", "ascending")]).slice(0, config.max_rows)
    return torch.from_numpy(np.sort(often["hash"].to_numpy()))


def _merged(parts: list[pa.Table]) -> pa.Table:
    empty = pa.table({"hash": pa.array([], pa.int64()), "events": pa.array([], pa.int64())})
    summed = pa.concat_tables([empty, *parts]).group_by("hash").aggregate([("events", "sum")])
    return summed.rename_columns({"hash": "hash", "events_sum": "events"})

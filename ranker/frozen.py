"""Scores of impressions by the memory as it was when their request began: what serving would have given.

Letters: B windows, N items.
"""

import torch
from torch import Tensor, nn

from ranker.hmat.layers import places
from ranker.hmat.model import HMAT
from ranker.windows import WindowBatch


def frozen_logits(model: nn.Module, batch: WindowBatch, known_BN: Tensor) -> Tensor:
    """``(B, N)``: every item as a candidate after the first ``known_BN`` items of its window (int64, at most as many as
    are of an earlier time).

    A HMAT remembers the windows once and scores their items against that. A model that cannot gets the windows twice
    over, as history and, after that, as candidates.
    """
    if isinstance(model, HMAT):
        return model.score(model.remember(*batch.inputs), batch.tokens, batch.items, known_BN)
    items = batch.tokens.shape[1]
    twice = (torch.cat([x, x], 1) for x in (batch.tokens, batch.items, batch.labels, batch.feedback))
    logits: Tensor = model(*twice, torch.cat([places(batch.items, batch.seen), known_BN], 1))
    return logits[:, items:]

"""Training windows as requests are served: items see the history as it was before their request began.

A ranker scores the candidates of one request by one memory, without the feedback of the others. One that was trained
on single events alone expects to know what came just before.

Letters: B windows, N items.
"""

from dataclasses import replace

import numpy as np
import torch

from ranker.hmat.layers import places
from ranker.windows import WindowBatch

REQUEST = 20  # items


def as_requests(batch: WindowBatch, share: float, rng: np.random.Generator) -> WindowBatch:
    """``batch`` with less in ``seen`` of a share of its windows: their items come in requests of :data:`REQUEST`, the
    first of which ends at a place that is drawn, and see no more than what came before their own."""
    windows, items = batch.items.shape
    phase_B1 = rng.integers(0, REQUEST, (windows, 1))
    begin_BN = np.maximum((np.arange(items) + phase_B1) // REQUEST * REQUEST - phase_B1, 0)
    begin_BN = np.where(rng.random((windows, 1)) < share, begin_BN, items)
    return replace(batch, seen=torch.minimum(places(batch.items, batch.seen), torch.from_numpy(begin_BN)))

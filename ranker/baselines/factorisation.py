"""Matrix factorisation: an item's bias and factors from training, the user's taste by what the window has shown so far.

The simplest ranker that learns from other users: no network, seconds to fit. It is the HMAT's collaborative memory
alone (:mod:`ranker.hmat.collaborative`), without content.

Letters: P all items of all windows, in order; B windows, N items, F numbers of an item's row.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ranker.config import CollaborativeConfig
from ranker.factors import ItemFactors
from ranker.hmat.collaborative import CollaborativeMemory, expected
from ranker.training_events import factors_of, training_events
from ranker.windows import flat, graded_feedback, padded, real_positions

GRADED: dict[str, Any] = {"content_components": 0, "met_components": 0, "half_life": None, "level_strength": 0.5}
PLAIN: dict[str, Any] = GRADED | {
    "factors": 8,
    "level_strength": 0.9,
    "user_strength": 3.0,
    "item_strength": 10.0,
    "bias_strength": 10.0,
}
LEAST = 0.005  # probability
WINDOWS = 64  # of one batch


@dataclass(frozen=True)
class Factorisation:
    """Factors of items and how the taste for them is read out of a history."""

    factors: ItemFactors
    config: CollaborativeConfig

    def __call__(self, windows: pa.Table, seen_P: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :class:`ranker.baselines.references.Reference`."""
        memory = CollaborativeMemory(self.factors, self.config, dim=1)
        ends = np.append(0, np.cumsum(real_positions(windows).sum(1)))
        parts = []
        for first in range(0, windows.num_rows, WINDOWS):
            part = windows.slice(first, WINDOWS)
            seen = seen_P[ends[first] : ends[first + part.num_rows]]
            parts.append(self._score(memory, part, seen))
        return np.concatenate(parts).clip(LEAST, 1 - LEAST)

    def _score(self, memory: CollaborativeMemory, windows: pa.Table, seen_P: NDArray[np.int64]) -> NDArray[np.float64]:
        items_BN = padded(windows, flat(windows["item_hashes"]))
        rows_BNF, _ = memory.rows(items_BN, None)
        labels_BN = padded(windows, flat(windows["labels"]).astype(np.int64))
        feedback_BN = memory.feedback(labels_BN, padded(windows, graded_feedback(windows)))
        seen_BN = padded(windows, seen_P)
        with torch.inference_mode():
            state_BNG = memory.states(rows_BNF, feedback_BN, items_BN)
            state_BNG = state_BNG.gather(1, seen_BN[..., None].expand(-1, -1, state_BNG.shape[2]))
            expected_BN = expected(rows_BNF, state_BNG).double().numpy()
        found: NDArray[np.float64] = expected_BN[real_positions(windows)]
        return found


def fit_factorisation(windows: Callable[[], Iterable[pa.Table]]) -> Factorisation:
    """On all training windows, whose events it holds in memory; graded feedback counts where there is any, and needs a
    weaker prior, since it says more than a label."""
    events = training_events(windows())
    config = CollaborativeConfig(**(PLAIN if np.isnan(events.graded_P).all() else GRADED))
    return Factorisation(replace(factors_of(events, config, None), apart_GIF=None), config)

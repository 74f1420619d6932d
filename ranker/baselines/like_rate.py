"""The like rate of an item in training, and what it becomes with the user's own level added.

Letters: P all items of all windows, in order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.windows import flat, places

ITEM_EVENTS = 10.0  # with the mean rate, that every item is given besides its own
USER_EVENTS = 5.0  # of no level, that every user is given besides
LEAST = 0.005  # probability


@dataclass(frozen=True)
class LikeRate:
    """An item's smoothed share of positive training events; with ``levels`` the mean by which a user's feedback so far
    was above the rates of its items, drawn towards 0, is added."""

    mean: float
    levels: bool = False

    def __call__(self, windows: pa.Table, seen_P: NDArray[np.int64]) -> NDArray[np.float64]:
        """See :class:`ranker.baselines.references.Reference`."""
        counts_P, clicks_P = (flat(windows[name]).astype(np.float64) for name in ("train_count", "train_clicks"))
        rate_P = (clicks_P + ITEM_EVENTS * self.mean) / (counts_P + ITEM_EVENTS)
        if not self.levels:
            return rate_P.clip(LEAST, 1 - LEAST)
        above = np.append(0.0, np.cumsum(flat(windows["labels"]) - rate_P))
        first_P = np.arange(len(rate_P)) - places(windows)
        level_P = (above[first_P + seen_P] - above[first_P]) / (seen_P + USER_EVENTS)
        return (rate_P + level_P).clip(LEAST, 1 - LEAST)


def fit_like_rate(windows: Callable[[], Iterable[pa.Table]]) -> LikeRate:
    """Of the training windows no more is read than the mean label: a window brings the counts of its items."""
    events, clicks = 0, 0
    for part in windows():
        labels = flat(part["labels"])[flat(part["loss_mask"]).astype(bool)]
        events, clicks = events + len(labels), clicks + int(labels.sum())
    return LikeRate(clicks / events if events else 0.5)


def fit_like_rate_and_level(windows: Callable[[], Iterable[pa.Table]]) -> LikeRate:
    """The same with users' levels."""
    return LikeRate(fit_like_rate(windows).mean, levels=True)

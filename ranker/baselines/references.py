"""The cheap rules that every evaluation prints beside a ranker, scored on the very same windows.

A rule is fitted on the training windows, once, and then scores windows as a ranker does: a probability for every item
of them, each by the label of no more than the first items of its window. To add one, put its ``fit`` into
:data:`REFERENCES`.

Letters: P all items of all windows, in order.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.baselines.factorisation import fit_factorisation
from ranker.baselines.like_rate import fit_like_rate, fit_like_rate_and_level


class Reference(Protocol):
    """A fitted rule; it is pickled, so that many processes can score."""

    def __call__(self, windows: pa.Table, seen_P: NDArray[np.int64]) -> NDArray[np.float64]:
        """Click probabilities ``(P,)`` of all items of rows of ``sequences``.

        Args:
            windows: with :data:`ranker.windows.MODEL_COLUMNS` and :data:`~ranker.windows.IMPRESSION_COLUMNS`.
            seen_P: how many first items of its window the score of an item may know the feedback of. What came before
                the window, nobody knows.
        """


Windows = Callable[[], Iterable[pa.Table]]
"""Gives the training windows anew with every call. They overlap: ``loss_mask`` is true of each event once."""

REFERENCES: dict[str, Callable[[Windows], Reference]] = {
    "like rate": fit_like_rate,
    "like rate + user": fit_like_rate_and_level,
    "factorisation": fit_factorisation,
}

__all__ = ["REFERENCES", "Reference", "Windows"]

"""How often every user counts in each replicate of a bootstrap: Poisson(1), a function of the user's id alone.

Whole users are drawn again, with all their impressions: those of one user depend on each other, and drawing impressions
would give intervals that are too narrow. That a draw depends on nothing but the user and the replicate lets parts of
the data be summed anywhere, in any order, and pairs the draws of whatever is compared.

Letters: U users, B replicates, W = 1 + B weightings, of which the first counts everybody once.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.mixing import GOLDEN, scattered

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPLICATES = 400
PERCENTILES = (2.5, 97.5)
CDF = np.cumsum(np.exp(-1) / np.cumprod([1, *range(1, 15)]))  # of Poisson(1)


def weightings(users: Sequence[str], replicates: int = REPLICATES) -> Floats:
    """``(U, W)``, how often each user counts."""
    numbers_UB = user_numbers(users)[:, None] + np.arange(1, replicates + 1, dtype=np.uint64) * GOLDEN
    uniform_UB = (scattered(numbers_UB) >> np.uint64(11)) * 2.0**-53
    times_UB = np.searchsorted(CDF, uniform_UB, side="right")
    return np.concatenate([np.ones((len(users), 1)), times_UB], 1)


def user_numbers(users: Sequence[str]) -> NDArray[np.uint64]:
    """``(U,)``, a hash of each id."""
    digests = b"".join(hashlib.blake2b(user.encode(), digest_size=8).digest() for user in users)
    return np.frombuffer(digests, np.uint64)


def interval(draws_B: Floats) -> list[float] | None:
    """The 95 % interval of a figure from its replicates; those that leave it undefined do not count."""
    defined = draws_B[~np.isnan(draws_B)]
    return np.percentile(defined, PERCENTILES).tolist() if len(defined) else None

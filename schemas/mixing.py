"""A hash of numbers that is the same on every machine, in every version and in any order of the rows."""

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio, made odd


def scattered(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's bits mixed (the end of SplitMix64): neighbours have nothing in common."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))

"""How long the parts of a job take: at any moment one part alone is timed, so that they add up to the whole."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REST = "rest"  # what lies between the parts that have a name
SPARK_START, RAY_START = "spark_start", "ray_start"


class Phases:
    """A clock that runs for the innermost phase that was entered, else for ``rest``."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._seconds = clock, {REST: 0.0}
        self.current = REST
        self.start()

    def start(self) -> None:
        """From here on time counts."""
        self._since = self._clock()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time the block; the phase around it stands still meanwhile."""
        outer = self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(outer)

    def seconds(self) -> dict[str, float]:
        """By phase, those of the one under way until now, in the order in which they were first entered."""
        self._turn_to(self.current)
        rest = self._seconds[REST]
        return {name: seconds for name, seconds in self._seconds.items() if name != REST} | {REST: rest}

    def _turn_to(self, name: str) -> str:
        now, before = self._clock(), self.current
        self._seconds[before] += now - self._since
        self._seconds.setdefault(name, 0.0)
        self._since, self.current = now, name
        return before

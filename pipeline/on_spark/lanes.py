"""How a host is asked: in lanes, each with one request at a time, held back when it fails or asks for a rest."""

import asyncio
import random
from dataclasses import dataclass, field

from pipeline.on_spark.pictures import ImageFault
from schemas.reasons import Reason

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds that a lane waits at most after a failure, doubled by each in a row
LONGEST_REST = 60.0  # seconds that a host may ask for
FAILED, PATIENCE = 5, 60.0  # pictures in a row and seconds: a host that fails for both is asked no more by the task


@dataclass
class Host:
    """What a task knows of a host."""

    rests_until: float = 0.0
    failures: int = 0  # pictures in a row that failed in every try
    failing_since: float = 0.0
    given_up: str = ""  # why

    async def ready(self) -> None:
        """Return when the host may be asked.

        Raises:
            ImageFault: ``fetch_failed``: it is not asked any more.
        """
        while not self.given_up and (rest := self.rests_until - now()) > 0:
            await asyncio.sleep(rest)
        if self.given_up:
            raise ImageFault(Reason.FETCH_FAILED, f"not asked for, since {self.given_up}; the next night tries again")

    def rest(self, seconds: float) -> None:
        """Let the host alone, as it asked."""
        if seconds > LONGEST_REST:
            self.given_up = f"its server asked for a rest of {seconds:.0f} s"
        self.rests_until = max(self.rests_until, now() + min(seconds, LONGEST_REST))

    def gave_nothing(self, began: float, why: str) -> None:
        """Note a picture that failed in every try, the first of which ``began`` then."""
        self.failing_since = self.failing_since if self.failures else began
        self.failures += 1
        if self.failures >= FAILED and now() - self.failing_since >= PATIENCE:
            self.given_up = f"{self.failures} pictures of its server failed in a row, the last one because {why}"


@dataclass
class Lane:
    """One of a host's lanes, with the tries in a row that failed."""

    host: Host
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    failed: int = 0

    def answered(self) -> None:
        """Note that the host works."""
        self.failed = self.host.failures = 0

    async def ready(self) -> None:
        """Return when the lane may ask: after failures later and later, by a random measure.

        Raises:
            ImageFault: ``fetch_failed``: the host is not asked any more.
        """
        if self.failed:
            longest = FIRST_PAUSE * 2.0 ** min(self.failed - 1, 16)
            await asyncio.sleep(random.uniform(0, min(longest, LONGEST_PAUSE)))
        await self.host.ready()


def now() -> float:
    """Seconds by the clock of the event loop."""
    return asyncio.get_running_loop().time()

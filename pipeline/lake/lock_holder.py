"""The run that writes to a lake, and what a folder's and an object store's lock have in common."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Protocol, Self

HOLDER = "lock.json"  # in the lake, names whoever holds its lock


@dataclass(frozen=True)
class Holder:
    """A run that writes, and the process it runs in."""

    job: str
    run_id: str
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """The run that a lake's ``lock.json`` names."""
        return cls(**{f.name: content.get(f.name, "?") for f in fields(cls)})

    def __str__(self) -> str:
        return f"{self.job} (run {self.run_id}, process {self.pid} on {self.host}, since {self.since})"


class Lock(Protocol):
    """What a folder's and an object store's lock have in common."""

    poll_seconds: float
    taken_over: bool  # from a run that did not give it back

    def take(self, me: Holder) -> bool:
        """Take the lock if it is free, and say whether it was."""

    def held_by(self) -> str:
        """The run that has it, in words."""

    def check(self) -> None:
        """Make sure that it is still ours.

        Raises:
            JobError: it is not, or may soon not be.
        """

    def release(self) -> None:
        """Give it back."""

"""Rows that kill the process that works on them are found and given up, not tried for ever.

Ray Data hands the block of a process that died to another one, without end; were it told to give up, it would lose the
whole block. So a worker tells a ledger, a process of its own, what it begins and again what it has done: what was begun
and not done killed somebody, be it the kernel, Ray's memory monitor or a crash. A block that did is worked on in
batches, a batch that did in halves, and a single row that did :data:`TRIES` times is given up. A process that held the
model for the worker would be watched as well, but take copies of every batch, and not outlive Ray's own kills. What an
undisturbed block costs is two messages.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import ray

from pipeline.errors import JobError

TRIES = 2  # of a row alone, which neighbours or another process's memory may have killed the first time
LOADS = 3  # of a model by one actor, or for one task

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Keys, and what belongs to them: a list, or arrays by name, with one entry a key; or a fault of all of them."""

    keys: list[str]
    content: Any = None
    fault: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> Self:
        content = self.content
        kept = {name: array[part] for name, array in content.items()} if isinstance(content, dict) else content[part]
        return replace(self, keys=self.keys[part], content=kept)

    def halves(self) -> tuple[Self, Self]:
        """The first half and the rest, of two rows or more."""
        half = len(self) // 2
        return self[:half], self[half:]

    @property
    def name(self) -> str:
        """Of these keys, among all stretches of rows."""
        return f"{self.keys[0]} and {len(self) - 1} more"


class Ledger:
    """What has been begun how often and not been done; in a process of its own, see :func:`start_ledger`."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._given_up: set[str] = set()

    def begin(self, name: str) -> int:
        """How often it was begun before and not done."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def done(self, name: str) -> None:
        """It killed nobody."""
        self._begun.pop(name, None)

    def deaths(self, names: list[str]) -> list[int]:
        """Of each how often it has been begun and not done."""
        return [self._begun[name] for name in names]

    def give_up(self, name: str) -> None:
        """It is not tried again."""
        self._given_up.add(name)

    def given_up(self) -> int:
        """How many rows are not tried again."""
        return len(self._given_up)


def start_ledger() -> Any:
    """The handle of a :class:`Ledger`; it ends with its last handle."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()


class Watched:
    """Work whose deaths a ledger counts."""

    def __init__(self, ledger: Any) -> None:
        here = ray.get_runtime_context()
        self._ledger, self._me = ledger, here.get_actor_id() or here.get_task_id()

    @contextmanager
    def once(self, what: str, fault: str, tries: int = LOADS) -> Iterator[None]:
        """Do what every worker does for itself.

        Raises:
            JobError: it killed this actor, or whoever had this task, ``tries`` times; ``fault`` says what that means.
        """
        name = f"{what} of {self._me}"
        if self._ask("begin", name) >= tries:
            raise JobError(fault)
        yield
        self._ask("done", name)

    def run(
        self,
        parts: Sequence[Rows],
        most: int,
        work: Callable[[Sequence[Rows]], list[T]],
        give_up: Callable[[Rows], list[T]],
    ) -> list[T]:
        """``work`` on all parts at once; where that has killed, on at most ``most`` rows of them, and on ever fewer."""
        if not parts:
            return []
        block = f"block of {parts[0].name}, {len(parts)} parts"
        if not self._ask("begin", block):
            results = work(parts)
        else:
            pieces = [part[first : first + most] for part in parts for first in range(0, len(part), most)]
            deaths = self._ask("deaths", [piece.name for piece in pieces])
            suspects_first = sorted(range(len(pieces)), key=lambda place: -deaths[place])
            found = {place: self._piece(pieces[place], work, give_up) for place in suspects_first}
            results = [result for place in range(len(pieces)) for result in found[place]]
        self._ask("done", block)
        return results

    def _piece(
        self, piece: Rows, work: Callable[[Sequence[Rows]], list[T]], give_up: Callable[[Rows], list[T]]
    ) -> list[T]:
        deaths = self._ask("begin", piece.name)
        if len(piece) == 1 and deaths >= TRIES:
            found = give_up(piece)
            self._ask("give_up", piece.name)
            return found
        if len(piece) > 1 and deaths:
            return [result for half in piece.halves() for result in self._piece(half, work, give_up)]
        results = work([piece])
        self._ask("done", piece.name)
        return results

    def _ask(self, method: str, argument: Any) -> Any:
        return ray.get(getattr(self._ledger, method).remote(argument))

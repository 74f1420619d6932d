"""What is made for a loop that must not wait: by a thread of its own, before it is asked for."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AHEAD = 4

T = TypeVar("T")


def ahead(items: Iterator[T], most: int = AHEAD) -> Iterator[T]:
    """The same items in the same order, ``most`` of them made before they are asked for.

    Raises:
        Exception: what making an item raised, in its place.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(most))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item

"""What a Python worker of Spark gives back is bounded by bytes, since rows carry pictures."""

from collections.abc import Iterable, Iterator
from typing import Any

BATCH_BYTES = 32 * 2**20  # of normalised pictures, past which a batch ends


def bounded(items: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of items, each of which ends with the picture that takes it past :data:`BATCH_BYTES`."""
    run: list[dict[str, Any]] = []
    size = 0
    for item in items:
        run.append(item)
        size += len(item.get("image") or b"")
        if size > BATCH_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run

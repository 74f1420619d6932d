"""Frames that several steps of a job read, kept on the executors' disks until the job is done with them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark import StorageLevel
from pyspark.sql import DataFrame

Keep = Callable[[DataFrame], DataFrame]


@contextmanager
def kept_on_disk() -> Iterator[Keep]:
    """A function that keeps a frame, once it is computed, until the block ends."""
    frames: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        frames.append(frame.persist(StorageLevel.DISK_ONLY))
        return frames[-1]

    try:
        yield keep
    finally:
        for frame in frames:
            frame.unpersist()

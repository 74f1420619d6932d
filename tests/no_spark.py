"""For tests of what does without Spark, and of what does not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

import pipeline.on_spark.session
from pipeline.lake.run import Run


class SparkAskedError(Exception):
    """Spark was asked for."""


@contextmanager
def no_spark() -> Iterator[None]:
    """A job in the block that asks for Spark fails with :class:`SparkAskedError`."""

    def refuse(_: Run) -> NoReturn:
        raise SparkAskedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline.on_spark.session, "spark_for", refuse)
        yield


def asks_for_spark(job: Callable[[], object]) -> None:
    """The job asks for Spark."""
    with no_spark(), pytest.raises(SparkAskedError):
        job()

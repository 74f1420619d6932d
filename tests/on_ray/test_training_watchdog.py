"""A training whose workers tell of nothing ends with a sentence, instead of never."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ray.util.queue import Empty

from pipeline.errors import JobError
from pipeline.on_ray.training import runs


class Hung:
    """A trainer that never comes back."""

    def __init__(self) -> None:
        self.freed = threading.Event()

    def fit(self) -> None:
        self.freed.wait()


class Figures:
    """A queue in which there is one figure."""

    def __init__(self) -> None:
        self.told: list[Any] = [(0.5, 3, {"loss": 0.25})]
        self.waited: list[float] = []

    def get(self, timeout: float) -> Any:
        self.waited.append(timeout)
        if not self.told:
            raise Empty
        return self.told.pop()

    def put(self, figure: Any) -> None:
        self.told.append(figure)


@pytest.fixture
def hung() -> Iterator[Hung]:
    trainer = Hung()
    yield trainer
    trainer.freed.set()


def test_silence_ends_a_training(hung: Hung, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "stall_seconds", lambda: 600.0)
    figures, shown = Figures(), []
    with pytest.raises(JobError, match=r"no progress for 720 s \(ray.stall_seconds .*\): a worker hangs.*run it again"):
        runs._follow(hung, figures, lambda *told: shown.append(told))  # type: ignore[arg-type]
    assert figures.waited == [720, 720]
    assert shown == [(0.5, 3, {"loss": 0.25})]


def test_one_that_ends_is_not_waited_for(hung: Hung) -> None:
    hung.freed.set()
    figures = Figures()
    figures.told.clear()
    figures.get = lambda timeout: None  # type: ignore[method-assign]
    assert runs._follow(hung, figures, None) is None  # type: ignore[arg-type]

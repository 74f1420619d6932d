"""A training whose workers tell of nothing ends with a sentence, instead of never."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.util.queue import Empty

from pipeline.errors import JobError
from pipeline.on_ray.training import runs, tokenizer_workers
from pipeline.on_ray.training.runs import ALIVE, Tell
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings, TokenizerError


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
        self.put_one = threading.Event()

    def get(self, timeout: float) -> Any:
        self.waited.append(timeout)
        if not self.told:
            raise Empty
        return self.told.pop()

    def put(self, figure: Any) -> None:
        self.told.append(figure)
        self.put_one.set()


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


def test_a_sign_of_life_breaks_the_silence_and_is_not_shown(hung: Hung) -> None:
    figures, shown = Figures(), []
    figures.told += [ALIVE]
    with pytest.raises(JobError, match="no progress"):
        runs._follow(hung, figures, lambda *told: shown.append(told))  # type: ignore[arg-type]
    assert len(figures.waited) == 3
    assert shown == [(0.5, 3, {"loss": 0.25})]


def test_rank_0_tells_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: now))
    figures = [Figures(), Figures()]
    tellers = [Tell(queue, rank) for rank, queue in enumerate(figures)]  # type: ignore[arg-type]
    for now in (100.5, 101.25, 102, 102.5):
        for tell in tellers:
            tell() if now < 102 else tell(lambda: (1.5, 3, {}))
    assert figures[0].told[1:] == [ALIVE, (1.5, 3, {})]
    assert not figures[1].told[1:]


def test_residual_kmeans_gives_signs_of_life_while_faiss_works(monkeypatch: pytest.MonkeyPatch) -> None:
    items = Embeddings(torch.ones(20, 3), torch.ones(20, 2), torch.ones(20).bool(), torch.ones(20).bool())
    vectors = SimpleNamespace(load=lambda: items, keys_N=np.arange(20, dtype=np.uint64))
    context = SimpleNamespace(get_world_rank=lambda: 0, get_local_world_size=lambda: 1)

    def one_long_call(*args: object, **settings: object) -> None:
        assert figures.put_one.wait(60)
        raise TokenizerError("enough")

    monkeypatch.setattr("ray.get", lambda job: job)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    for name, found in {"get_device": torch.device("cpu"), "share_of_cores": 1, "last_checkpoint": None}.items():
        monkeypatch.setattr(tokenizer_workers, name, lambda *args, found=found: found)
    monkeypatch.setattr(tokenizer_workers, "fit", one_long_call)
    monkeypatch.setattr(runs, "TELL_SECONDS", 0.01)
    figures = Figures()
    job = tokenizer_workers._Job(TokenizerConfig(method="rq_kmeans"), vectors, figures, 30)  # type: ignore[arg-type]
    assert tokenizer_workers._train_worker({"job": job}).refused == "enough"
    assert set(map(len, figures.told[1:])) == {len(ALIVE)}


def test_one_that_ends_is_not_waited_for(hung: Hung) -> None:
    hung.freed.set()
    figures = Figures()
    figures.told.clear()
    figures.get = lambda timeout: None  # type: ignore[method-assign]
    assert runs._follow(hung, figures, None) is None  # type: ignore[arg-type]

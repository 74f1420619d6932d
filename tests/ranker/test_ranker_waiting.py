"""The thread that steps waits for nothing, and what comes out is what a plain loop gives, to the bit."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_ranker_data import LAYOUT, taste_windows
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ranker import training as trainings
from ranker.ahead import AHEAD, ahead
from ranker.architectures import build
from ranker.config import CollaborativeConfig, ItemIdConfig, RankerConfig
from ranker.hmat import model as model_of_hmat
from ranker.hmat.attention import dense_attention
from ranker.requests import as_requests
from ranker.training import Training, learning_rate
from ranker.training_events import factors_of, training_events
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import WindowBatch, collate, shuffled_batches

CONFIG = RankerConfig(dim=16, layers=2, heads=1, warmup_steps=3, batch_items=60, item_id=ItemIdConfig(dropout=0.2))
WINDOWS = taste_windows(40, seed=1)


def batches() -> Iterator[WindowBatch]:
    return shuffled_batches([WINDOWS], LAYOUT, CONFIG.batch_items, np.random.default_rng(0))


def fresh() -> Training:
    model = build(CONFIG, LAYOUT, hash_I=vocabulary([item_counts(WINDOWS)], ItemIdConfig()))
    return Training(model, CONFIG, LAYOUT, len(WINDOWS))


def plain_pass(training: Training) -> float:
    """One thread, one batch after the other, every loss looked at."""
    total, seen = 0.0, 0
    training.model.train()
    for step, batch in enumerate(batches()):
        torch.manual_seed(int(np.random.SeedSequence([CONFIG.seed, 0, step]).generate_state(1)[0]))
        logits, mask = training.model(*batch.inputs, batch.fold), batch.loss_mask
        loss = F.binary_cross_entropy_with_logits(logits[mask], batch.labels[mask].float(), reduction="sum")
        training.optimisers.zero_grad()
        (loss / mask.sum()).backward()
        training.optimisers.step(learning_rate(step, seen, len(WINDOWS) * CONFIG.epochs, CONFIG))
        total, seen = total + loss.item(), seen + len(mask)
    return total


@pytest.mark.parametrize("look", [3, 1000])
def test_a_pass_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    monkeypatch.setattr(trainings, "LOOK", look)
    training, plain = fresh(), fresh()
    shown: list[float] = []
    figures = training.run_epoch(batches(), on_step=lambda training: shown.append(training.loss))
    assert figures.steps > 10
    assert figures.loss == plain_pass(plain) / figures.impressions
    for name, tensor in plain.weights().items():
        assert torch.equal(training.weights()[name], tensor), name
    assert all(0.3 < loss < 1 for loss in shown[look - 1 :])  # of the steps that were looked at, whatever came since


def test_batches_without_a_step_are_told_of_too() -> None:
    """Those of a pass that an earlier process trained on, and those that the loss is watched on, may take long."""
    signs, steps, count = [], [], len(list(batches()))
    training = fresh()
    training.progress.steps = skipped = 4
    training.run_epoch(batches(), batches, lambda training: steps.append(len(signs)), lambda: signs.append(len(steps)))
    assert steps == [skipped] * (count - skipped)
    assert signs == [0] * skipped + [count - skipped] * count


def test_batches_come_in_order_from_a_thread_of_their_own_a_few_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            assert threading.current_thread() is not threading.main_thread()
            made.append(number)
            yield number
        raise OSError("the disk is gone")

    coming = ahead(numbers())
    for number in range(20):
        assert next(coming) == number
        assert len(made) <= number + 1 + AHEAD
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)


@pytest.mark.parametrize("ties", [False, True])
def test_no_step_asks_a_gpu_for_a_number(monkeypatch: pytest.MonkeyPatch, ties: bool) -> None:
    """Fake tensors have no numbers, and refuse to be asked for any. Attention on CUDA is one compiled call."""

    def dense(*inputs: Tensor) -> Tensor:
        return dense_attention(*inputs[:-1], seen_BN=inputs[-1])

    monkeypatch.setattr(model_of_hmat, "memory_anchor_attention", dense)
    settings = CollaborativeConfig(factors=2, content_components=0)
    config = RankerConfig(dim=32, heads=2, precision="bfloat16", collaborative=settings)
    batch = collate(WINDOWS, LAYOUT)
    if ties:
        batch = as_requests(batch, 1.0, np.random.default_rng(0))
    model = build(config, LAYOUT, factors=factors_of(training_events([WINDOWS]), settings, None, 0))
    mode = FakeTensorMode()
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(mode.from_tensor(parameter.detach())))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, mode.from_tensor(buffer))
    fake = WindowBatch(*(None if x is None else mode.from_tensor(x) for x in vars(batch).values()))
    with mode:
        training = Training(model, config, LAYOUT, len(WINDOWS))
        for _ in range(2):
            training._step(fake, batch.windows, batch.impressions)
        with pytest.raises(DataDependentOutputException):  # to look is to ask
            training.look()

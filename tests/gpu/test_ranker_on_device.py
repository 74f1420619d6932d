"""The ranker on a device gives what it gives on a CPU: attention, the whole model, training steps."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_ranker_data import LAYOUT, taste_windows
from torch import Tensor

from ranker.architectures import build
from ranker.config import CollaborativeConfig, ItemIdConfig, RankerConfig
from ranker.hmat.attention import dense_attention
from ranker.hmat.flash import memory_anchor_attention, seen_by_place
from ranker.hmat.items import places_among
from ranker.requests import as_requests
from ranker.training import Training, loss_sum
from ranker.training_events import factors_of, training_events
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import WindowBatch, collate, shuffled_batches

CPU = torch.device("cpu")
WINDOWS = taste_windows(40, seed=1)
FACTORS = CollaborativeConfig(factors=2, content_components=0, met_components=2, unknown=0)
PRECISE, HALF = 1e-4, 0.03  # of the length of what is compared


def assert_near(found: Tensor | None, expected: Tensor | None, near: float) -> None:
    assert found is not None
    assert expected is not None
    found, expected = (x.detach().to(CPU, torch.float64) for x in (found, expected))
    assert torch.linalg.vector_norm(found - expected) <= near * max(1.0, float(torch.linalg.vector_norm(expected)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("queries", "head", "ties", "before"), [(8, 32, False, 0), (8, 20, True, 5), (1, 4, True, 0)])
def test_attention(device: torch.device, dtype: torch.dtype, queries: int, head: int, ties: bool, before: int) -> None:
    items = 70
    torch.manual_seed(0)
    own = [torch.randn(2, items, size, 2, head).movedim(3, 1) for size in (queries, 8, 8)]
    precise = [*own, *(torch.randn(2, 2, before + items, head) for _ in range(2))]
    precise = [x.to(dtype).double().requires_grad_() for x in precise]
    there = [x.detach().to(device, dtype).requires_grad_() for x in precise]
    seen = seen_by_place(precise[0], precise[3])
    if ties:
        seen = (torch.rand(seen.shape) * (seen + 1)).long()
    found = memory_anchor_attention(*there, seen.to(device) if ties else None)
    expected = dense_attention(*precise, seen_BN=seen)
    assert found.dtype == dtype
    weight = torch.randn_like(expected)
    (found * weight.to(device, dtype)).sum().backward()
    (expected * weight).sum().backward()
    near = PRECISE if dtype == torch.float32 else HALF
    for quick, slow in [(found, expected), *((a.grad, b.grad) for a, b in zip(there, precise, strict=True))]:
        assert_near(quick, slow, near)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_whole_model(device: torch.device, precision: str) -> None:
    config = RankerConfig(dim=32, heads=2, dropout=0, collaborative=FACTORS, recompute=10)
    factors = factors_of(training_events([WINDOWS]), FACTORS, None, 0)
    batch = as_requests(collate(WINDOWS, LAYOUT), 0.5, np.random.default_rng(0))
    gradients, logits = [], []
    for place, half in ((device, precision == "bfloat16"), (CPU, False)):
        model, there = build(config, LAYOUT, factors=factors).to(place), batch.to(place)
        model.head[-1].weight.data = torch.linspace(-0.2, 0.2, config.dim, device=place)[None]
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            logits.append(model(*there.inputs))
        loss_sum(logits[-1], there).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    near = PRECISE if precision == "float32" else HALF
    mask = batch.loss_mask
    assert_near(logits[0].to(CPU)[mask], logits[1][mask], near)
    assert gradients[0].keys() == gradients[1].keys()
    found, expected = (torch.cat([g.detach().to(CPU).flatten() for g in some.values()]) for some in gradients)
    assert_near(found, expected, 3 * near)


def batches() -> Iterator[WindowBatch]:
    return shuffled_batches([WINDOWS], LAYOUT, 100, np.random.default_rng(0))


def test_training_steps(device: torch.device) -> None:
    """With a vector for every item: a step touches the rows that it names, on any device."""
    ids = ItemIdConfig()
    config = RankerConfig(dim=16, layers=2, heads=1, dropout=0, precision="float32", item_id=ids, warmup_steps=0)
    hash_I, weights = vocabulary([item_counts(WINDOWS)], ids), []
    for place in (device, CPU):
        training = Training(build(config, LAYOUT, hash_I=hash_I).to(place), config, LAYOUT, len(WINDOWS), place)
        first = next(batches())
        training.run_epoch(iter([first]))
        table = training.weights()["items.identity.table.weight"].to(CPU)
        named = torch.zeros(len(table), dtype=torch.bool)
        named[places_among(hash_I, first.items).unique()] = True
        named[-1] = False  # nobody's
        assert torch.equal(table.any(1), named)
        figures = training.run_epoch(batches())
        weights.append(
            {name: x.to(CPU) for name, x in training.weights().items()} | {"loss": torch.tensor(figures.loss)}
        )
    for name, expected in weights[1].items():
        torch.testing.assert_close(weights[0][name], expected, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.gpu
def test_a_step_on_cuda_waits_for_nothing() -> None:
    config = RankerConfig(dim=64, heads=2, collaborative=FACTORS)
    gpu, factors = torch.device("cuda"), factors_of(training_events([WINDOWS]), FACTORS, None, 0)
    training = Training(build(config, LAYOUT, factors=factors).to(gpu), config, LAYOUT, len(WINDOWS), gpu)
    training.run_epoch(batches())  # kernels are made
    batch = collate(WINDOWS, LAYOUT).pinned()
    training._step(batch.to(gpu), batch.windows, batch.impressions)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training._step(batch.to(gpu), batch.windows, batch.impressions)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    training.look()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_on_cuda_grows_with_the_items(dtype: torch.dtype) -> None:
    def peak(items: int) -> int:
        shapes = [(1, 2, items, 8, 32)] * 3 + [(1, 2, items, 32)] * 2
        inputs = [torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        memory_anchor_attention(*inputs).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(1000)  # kernels are made
    assert peak(16_000) < 6 * peak(4000)  # a quadratic form would be 16 times as large

"""Attention on CUDA, as far as a machine without one can tell: its mask, its blocks, its kernels made for the CPU."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention
from torch.nn.attention.flex_attention import BlockMask, create_mask

from ranker.hmat import flex
from ranker.hmat.attention import dense_attention, own_item_mask

CPU = torch.device("cpu")


def case(
    batch: int, items: int, queries: int, before: int, head: int = 16, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Queries, keys, values, memories and what is seen of them, of items of four slots that share their times."""
    torch.manual_seed(batch * items)
    own = [torch.randn(batch, items, size, 2, head, dtype=dtype).movedim(3, 1) for size in (queries, 4, 4)]
    past = [torch.randn(batch, 2, before + items, head, dtype=dtype) for _ in range(2)]
    seen = torch.arange(before, before + items).expand(batch, items)
    return *own, *past, (torch.rand(batch, items) * (seen + 1)).long()


def listed(blocks: BlockMask, number: Tensor, order: Tensor) -> Tensor:
    """Bool ``(B, rows, columns)`` of blocks."""
    there = torch.zeros(*order.shape, dtype=torch.bool)
    first = torch.arange(order.shape[-1]) < number[..., None]
    return there.scatter(-1, order.long(), first)[:, 0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3), st.integers(1, 12), st.sampled_from([1, 4]), st.integers(0, 9), st.sampled_from([3, 4, 16]))
def test_no_block_is_left_out_in_which_something_is_seen(
    monkeypatch: pytest.MonkeyPatch, batch: int, items: int, queries: int, before: int, size: int
) -> None:
    monkeypatch.setattr(flex, "BLOCK", size)
    seen, memories = case(batch, items, queries, before)[-1], before + items
    blocks = flex.visible_blocks(seen, queries, 4, memories)
    visible = create_mask(blocks.mask_mod, batch, 1, *blocks.seq_lengths, device="cpu")[:, 0]
    past = torch.arange(memories) <= seen.repeat_interleave(queries, 1)[..., None]
    own = torch.block_diag(*[own_item_mask(4, queries, CPU)] * items).expand(batch, -1, -1)
    assert torch.equal(visible, torch.cat([past, own], 2))
    missing = (0, -visible.shape[2] % size, 0, -visible.shape[1] % size)
    inside = torch.nn.functional.pad(visible, missing).unflatten(2, (-1, size)).unflatten(1, (-1, size))
    full = listed(blocks, blocks.full_kv_num_blocks, blocks.full_kv_indices)
    some = listed(blocks, blocks.kv_num_blocks, blocks.kv_indices)
    assert not (full & some).any()
    assert torch.equal(full | some, inside.any(4).any(2))
    assert not (full & ~inside.all(4).all(2)).any()


def equal_in_values_and_gradients(attend: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    *inputs, seen = inputs
    with_gradients = [x.detach().requires_grad_() for x in inputs]
    found = attend(*with_gradients, seen)
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weight).sum(), with_gradients)
    slow = dense_attention(*with_gradients, seen_BN=seen)
    expected = torch.autograd.grad((slow * weight).sum(), with_gradients)
    for quick, reference in zip((found, *gradients), (slow, *expected), strict=True):
        torch.testing.assert_close(quick, reference)


@pytest.fixture
def _gradients_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flex attention can tell its gradients on a CPU, in its slow form, but says that it cannot."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


@pytest.mark.usefixtures("_gradients_on_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("queries", "head"), [(4, 16), (1, 4)])
def test_its_mask_gives_the_values_and_gradients_of_dense_attention(
    monkeypatch: pytest.MonkeyPatch, queries: int, head: int
) -> None:
    monkeypatch.setattr(flex, "compiled", flex_attention.flex_attention)
    equal_in_values_and_gradients(flex.read, case(2, 7, queries, 3, head, torch.float64))


@pytest.mark.slow
@pytest.mark.usefixtures("_gradients_on_cpu")
def test_batches_of_all_lengths_share_a_few_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few beside the limit, at which a training would end."""
    counter = CompileCounterWithBackend("aot_eager")
    attend = torch.compile(flex_attention.flex_attention, dynamic=True, fullgraph=True, backend=counter)
    monkeypatch.setattr(flex, "compiled", attend)
    met = [(2, 40, 0), (5, 33, 0), (3, 1, 0), (1, 50, 0), (1, 1, 0), (7, 21, 5), (1, 91, 5), (4, 77, 9), (9, 130, 3)]
    for batch, items, before in met:
        for queries in (4, 1):
            equal_in_values_and_gradients(flex.read, case(batch, items, queries, before))
    assert counter.frame_count < flex.KINDS / 2


@pytest.mark.slow
def test_kernels_that_leave_blocks_out_read_the_same() -> None:
    """Those for the CPU, which know no gradients; torch's template for it does not compile for anchors alone."""
    torch.compiler.reset()  # what other tests made symbols of, that template may not know
    for batch, items, queries in ((2, 150, 4), (1, 300, 4)):
        *inputs, seen = case(batch, items, queries, 20)
        found = flex.read(*inputs, seen)
        torch.testing.assert_close(found, dense_attention(*inputs, seen_BN=seen), atol=1e-5, rtol=1e-5)

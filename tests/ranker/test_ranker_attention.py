"""Memory-anchor attention and rotary positions against slow references."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ranker.hmat import partial_attention_cpu
from ranker.hmat.attention import dense_attention, with_null
from ranker.hmat.flash import memory_anchor_attention
from ranker.hmat.rotary import hierarchical_rotation, plain_rotation, rotate
from schemas.semantic_id import Layout

LAYOUT = Layout(2, 1, 1, 6)
CPU = torch.device("cpu")


def one_softmax(
    q: Tensor, k: Tensor, v: Tensor, memory_k: Tensor, memory_v: Tensor, null: Tensor, seen: Tensor
) -> Tensor:
    """One masked softmax over null memory, the first ``seen`` of N memories and all N·S tokens."""
    batch, heads, items, slots, head = q.shape
    item = torch.arange(items).repeat_interleave(slots)
    is_anchor = torch.arange(slots).repeat(items) == slots - 1
    own = ((item[:, None] == item) & (is_anchor[:, None] | ~is_anchor)).expand(batch, -1, -1)
    past = seen.repeat_interleave(slots, 1)[..., None] > torch.arange(items)
    visible = torch.cat([torch.ones(batch, items * slots, 1, dtype=torch.bool), past, own], 2)[:, None]
    null_kv = null.expand(batch, heads, 1, head)
    keys = torch.cat([null_kv, memory_k, k.flatten(2, 3)], 2)
    values = torch.cat([null_kv, memory_v, v.flatten(2, 3)], 2)
    scores = q.flatten(2, 3) @ keys.transpose(-1, -2) / head**0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return (weights @ values).unflatten(2, (items, slots))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.sampled_from([4, 8]), st.data())
def test_equals_the_dense_mask_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, batch: int, heads: int, items: int, slots: int, head: int, data: st.DataObject
) -> None:
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    queries = data.draw(st.sampled_from([1, slots]))
    shapes = [(batch, heads, items, slots, head)] * 3 + [(batch, heads, items, head)] * 2 + [(heads, 1, head)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    q, k, v, memory_k, memory_v, null = inputs
    past = (with_null(null[:, 0], memory)[:, :, :items] for memory in (memory_k, memory_v))
    attend = data.draw(st.sampled_from([dense_attention, memory_anchor_attention]))
    monkeypatch.setattr(partial_attention_cpu, "STRETCH", data.draw(st.sampled_from([1, 3, 128])))
    first = data.draw(st.integers(0, items - 1))  # only the items from there on are asked for
    own = (x[:, :, first:] for x in (q[..., slots - queries :, :], k, v))
    seen = torch.arange(items).expand(batch, items)
    if ties := data.draw(st.booleans()):
        seen = (torch.rand(batch, items) * (seen + 1)).long()  # any number of the items before it
    fast = attend(*own, *past, **({"seen_BN": seen[:, first:]} if ties else {}))
    slow = one_softmax(*inputs, seen)[:, :, first:, slots - queries :]
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(fast)
    # With one item its memory is seen by nobody.
    gradients = (torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True) for out in (fast, slow))
    for quick, reference in zip(*gradients, strict=True):
        zero = torch.zeros_like(reference)
        torch.testing.assert_close(zero if quick is None else quick, reference)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 200), st.integers(2, 8), st.sampled_from([torch.float32, torch.bfloat16]))
def test_flash_equals_the_reference_in_lower_precision(batch: int, items: int, slots: int, dtype: torch.dtype) -> None:
    torch.manual_seed(items)
    heads, head = 2, 32
    shapes = [(batch, heads, items, slots, head)] * 3 + [(batch, heads, items, head)] * 2
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    precise = [x.detach().double().requires_grad_() for x in inputs]
    weight = torch.randn(shapes[0], dtype=dtype)
    flash, reference = memory_anchor_attention(*inputs), dense_attention(*precise)
    (flash * weight).sum().backward()
    (reference * weight.double()).sum().backward()
    near = 1e-4 if dtype == torch.float32 else 0.03
    for quick, slow in [(flash, reference), *((a.grad, b.grad) for a, b in zip(inputs, precise, strict=True))]:
        assert quick is not None
        assert slow is not None
        assert quick.dtype == dtype
        difference = torch.linalg.vector_norm(quick.detach().double() - slow.detach())
        assert difference <= near * max(1.0, torch.linalg.vector_norm(slow.detach()))


def test_the_operators_on_cpu_are_those_that_were_written_for() -> None:
    """They are torch's own and not public: where a version changes them, partial_attention_cpu.py is to follow."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default._schema
    assert str(forward).partition("(")[2] == (
        "Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, "
        "Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)"
    )
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default._schema
    assert str(backward).partition("(")[2] == (
        "Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, float dropout_p, "
        "bool is_causal, *, Tensor? attn_mask=None, float? scale=None) -> "
        "(Tensor grad_query, Tensor grad_key, Tensor grad_value)"
    )


def test_a_score_depends_on_distances_in_items_and_in_slots() -> None:
    rotation = hierarchical_rotation(12, 5, 16, 100.0, CPU)
    q, k = torch.randn(2, 1, 16).unbind()

    def score(item_q: int, slot_q: int, item_k: int, slot_k: int) -> float:
        return float((rotate(q, rotation[item_q, slot_q]) * rotate(k, rotation[item_k, slot_k])).sum())

    assert score(7, 3, 4, 1) == pytest.approx(score(11, 4, 8, 2), abs=1e-5)
    assert score(7, 3, 4, 1) != pytest.approx(score(7, 3, 5, 1), abs=1e-3)
    assert score(7, 3, 4, 1) != pytest.approx(score(7, 3, 4, 2), abs=1e-3)


def test_item_and_slot_turn_separate_halves_of_a_head() -> None:
    rotation = hierarchical_rotation(4, 3, 16, 100.0, CPU)
    x = torch.randn(4, 3, 2, 16)
    turned = rotate(x, rotation)
    torch.testing.assert_close(turned[:, 0, :, 8:], x[:, 0, :, 8:])
    torch.testing.assert_close(turned[0, :, :, :8], x[0, :, :, :8])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_the_plain_rotation_is_the_textbook_one() -> None:
    x = torch.randn(7, 1, 4)
    turned = rotate(x, plain_rotation(7, 4, 100.0, CPU))
    for position in range(7):
        for pair, frequency in enumerate((1.0, 0.1)):
            angle = torch.tensor(position * frequency)
            a, b = x[position, 0, 2 * pair : 2 * pair + 2]
            expected = torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()])
            torch.testing.assert_close(turned[position, 0, 2 * pair : 2 * pair + 2], expected)

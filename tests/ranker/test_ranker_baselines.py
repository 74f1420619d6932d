"""The neural baselines against loops over one query at a time, and what a logit of theirs may depend on."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.architectures import BASELINES, build
from ranker.config import RankerConfig
from ranker.hmat.rotary import plain_rotation, rotate
from schemas.semantic_id import Layout

LAYOUT = Layout(2, 1, 1, 6)
HEADS, DIM = 2, 16
KNOWN = 20  # hashes from 0 that training met, of twice as many
CPU = torch.device("cpu")
ARCHS = st.sampled_from(list(BASELINES))


def ranker(arch: str, seed: int = 0) -> Any:
    """In evaluation, with weights of which none is zero."""
    size = {"dim": DIM, "heads": HEADS, "layers": 2, "max_items": 12}
    known = {"feedback": True, "item_id": {}}
    config = RankerConfig.model_validate({"arch": arch, "seed": seed} | size | known)
    model = build(config, LAYOUT, hash_I=torch.arange(KNOWN)).eval()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(requires_grad=False)


def windows(batch: int, items: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Codes, hashes, labels, graded feedback, and how many items each sees, any of those before."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, LAYOUT.absent + 1, (batch, items, LAYOUT.slots), generator=rng)
    ids = torch.randint(0, 2 * KNOWN, (batch, items), generator=rng)
    labels = torch.randint(0, 2, (batch, items), generator=rng)
    seen = (torch.rand(batch, items, generator=rng) * (torch.arange(items) + 1)).long()
    return tokens, ids, labels, torch.rand(batch, items, generator=rng), seen


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1))


def softmax_read(block: Any, asking: Tensor, states: list[Tensor], turned: Any = None) -> Tensor:
    """What one query makes of some states, by one softmax a head."""
    query = heads(block.query(block.norm(asking)))
    keys, values = (heads(x) for x in block.key_value(block.norm(torch.stack(states))).chunk(2, -1))
    if turned is not None:
        query, keys = rotate(query, turned[0]), rotate(keys, turned[1])
    weights = (torch.einsum("hd,mhd->hm", query, keys) * query.shape[-1] ** -0.5).softmax(-1)
    x = asking + block.out(torch.einsum("hm,mhd->hd", weights, values).flatten())
    return x + block.feed_forward(x)


def slow_sasrec(model: Any, window: list[Tensor], seen: list[int]) -> Tensor:
    candidates, events = model.embed(*window)
    visible = [[0], *([0, *range(1, n + 1), item + 1] for item, n in enumerate(seen))]
    states = [model.start_E, *(events[0] + model.place.weight[seen])]
    for block in model.blocks:
        states = [softmax_read(block, x, [states[m] for m in some]) for x, some in zip(states, visible, strict=True)]
    asking = candidates[0] + model.place.weight[seen]
    read = [softmax_read(model.read, x, states[: n + 1]) for x, n in zip(asking, seen, strict=True)]
    return model.head(torch.stack(read))[:, 0]


def slow_flat(model: Any, window: list[Tensor], seen: list[int]) -> Tensor:
    tokens, ids, labels, graded = window
    details, whole = (x[0] for x in model.items(tokens, ids))
    stream, owner = [], []
    for item, (some, one) in enumerate(zip(details, whole, strict=True)):
        known = [some.sum(0) + one, *some, one]
        normed = [model.norm(x + slot) for x, slot in zip(known, model.slot_SE, strict=True)]
        feedback = model.feedback(labels[0, item], graded[0, item])
        stream += [normed[0], *(x + feedback for x in normed[1:])]
        owner += [item] * len(known)
    turn = plain_rotation(len(seen) + 1, DIM // HEADS, model.config.rope_base, CPU)[[seen[item] for item in owner]]
    visible = [
        [m for m in range(len(stream)) if owner[m] < seen[owner[n]] or (owner[m] == owner[n] and m <= n)]
        for n in range(len(stream))
    ]
    for block in model.blocks:
        stream = [
            softmax_read(block, x, [stream[m] for m in some], (turn[n], turn[some]))
            for n, (x, some) in enumerate(zip(stream, visible, strict=True))
        ]
    return model.head(torch.stack(stream[:: LAYOUT.slots + 2]))[:, 0]


def slow_hstu(model: Any, window: list[Tensor], seen: list[int]) -> Tensor:
    stream = [x for pair in zip(*(part[0] for part in model.embed(*window)), strict=True) for x in pair]
    for block in model.blocks:
        mixed = [F.silu(block.mix(block.norm(x))).chunk(4, -1) for x in stream]
        after = []
        for n, (gate, _, query, _) in enumerate(mixed):
            read = torch.zeros(HEADS, DIM // HEADS)
            for m, (_, value, _, key) in enumerate(mixed):
                if m // 2 < seen[n // 2] or (m // 2 == n // 2 and m <= n):
                    distance = max(0, seen[n // 2] - seen[m // 2])
                    bias = block.distance.weight[distance] + block.kinds_HSS[:, n % 2, m % 2]
                    read += F.silu((heads(query) * heads(key)).sum(-1) + bias)[:, None] * heads(value)
            after.append(stream[n] + block.out(block.read_norm(read.flatten()) * gate))
        stream = after
    return model.head(torch.stack(stream[::2]))[:, 0]


def slow_din(model: Any, window: list[Tensor], seen: list[int]) -> Tensor:
    """With a matrix of the unit that has columns of the difference, too."""
    unit, difference = model.activation, torch.randn(model.activation.product_UE.shape)
    columns = [unit.candidate.weight - difference, unit.event.weight + difference, difference, unit.product_UE]
    logits = []
    candidates, events = (x[0] for x in model.embed(*window))
    for q, n in zip(candidates, seen, strict=True):
        user = torch.zeros(DIM)
        for k in events[:n]:
            hidden = torch.cat(columns, 1) @ torch.cat([q, k, q - k, q * k]) + unit.candidate.bias
            user += unit.weight(F.silu(hidden)) * k
        logits.append(model.head(torch.cat([q, user, q * user])))
    return torch.cat(logits)


SLOW = {"sasrec": slow_sasrec, "flat": slow_flat, "hstu": slow_hstu, "din": slow_din}


@settings(max_examples=16, deadline=None)
@given(ARCHS, st.integers(1, 6), st.integers(0, 2**16))
def test_logits_are_those_of_one_query_at_a_time(arch: str, items: int, seed: int) -> None:
    model = ranker(arch, seed)
    *window, seen = windows(1, items, seed)
    slow = SLOW[arch](model, window, seen[0].tolist())
    torch.testing.assert_close(model(*window, seen)[0], slow, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(ARCHS, st.integers(1, 3), st.integers(1, 10), st.integers(0, 2**16), st.data())
def test_no_feedback_of_its_own_time_or_later_moves_a_logit(
    arch: str, batch: int, items: int, seed: int, data: st.DataObject
) -> None:
    model = ranker(arch)
    tokens, ids, labels, graded, seen = windows(batch, items, seed)
    logits = model(tokens, ids, labels, graded, seen)
    assert logits.shape == (batch, items)
    changed = data.draw(st.integers(0, items - 1))
    labels[:, changed], graded[:, changed] = 1 - labels[:, changed], 3.0
    moved = (model(tokens, ids, labels, graded, seen) - logits).abs() > 1e-6
    assert not (moved & (changed >= seen)).any()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_din_in_stretches_is_din_at_once(length: int) -> None:
    model = ranker("din")
    *window, seen = windows(2, length, length)
    stretched = model(*window, seen)
    model.config = model.config.model_copy(update={"recompute": 1000})
    torch.testing.assert_close(model(*window, seen), stretched, atol=1e-4, rtol=1e-5)

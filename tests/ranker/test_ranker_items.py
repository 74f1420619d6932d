"""Vectors of items' own: who has one, that nobody has a stranger's, and steps that touch no row but those they name."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranker_data import LAYOUT, taste_windows

from ranker.architectures import build
from ranker.config import ItemIdConfig, RankerConfig
from ranker.hmat.items import places_among
from ranker.optimisers import Optimisers, mean_over_workers
from ranker.training import Training
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import collate, sorted_batches
from schemas.semantic_id import item_hash

CONFIG = RankerConfig(dim=8, layers=1, heads=1, codes=False, item_id=ItemIdConfig(), dropout=0, warmup_steps=0)


def counts_of(events: dict[int, int]) -> pa.Table:
    return pa.table({"hash": pa.array(events.keys(), pa.int64()), "events": pa.array(events.values(), pa.int64())})


def test_no_new_item_has_a_strangers_vector() -> None:
    hashes = torch.tensor([item_hash(f"item {n}") for n in range(220_000)])
    met_I, new = hashes[:200_000].sort().values, hashes[200_000:]
    config = RankerConfig(dim=4, heads=1, item_id=ItemIdConfig())
    identity = build(config, LAYOUT, hash_I=met_I).items.identity.eval()
    identity.table.weight.data[:-1] = torch.arange(1.0, 200_001)[:, None]
    assert not identity(new[None]).any()
    own = identity(hashes[None, :200_000])[0, :, 0].long() - 1
    assert torch.equal(met_I[own], hashes[:200_000])


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), unique=True), st.lists(st.integers(-6, 6), min_size=1))
def test_places_are_those_of_a_dictionary(known: list[int], asked: list[int]) -> None:
    hash_I = torch.tensor(sorted(known), dtype=torch.int64)
    place_of = {value: place for place, value in enumerate(hash_I.tolist())}
    expected = [place_of.get(value, len(known)) for value in asked]
    assert places_among(hash_I, torch.tensor([asked])).tolist() == [expected]


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.integers(0, 30), st.integers(1, 4)), max_size=6),
    st.integers(1, 4),
    st.integers(1, 12),
)
def test_the_most_frequent_items_have_rows(parts: list[dict[int, int]], min_events: int, max_rows: int) -> None:
    totals: Counter[int] = Counter()
    for part in parts:
        totals.update(part)
    often = sorted((-count, value) for value, count in totals.items() if count >= min_events)[:max_rows]
    config = ItemIdConfig(min_events=min_events, max_rows=max_rows)
    assert vocabulary(map(counts_of, parts), config).tolist() == sorted(value for _, value in often)


def test_many_parts_are_merged_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranker.vocabulary.LEAST_MERGED", 3)
    parts = [counts_of({n: 1, n + 1: 1}) for n in range(10)]
    assert vocabulary(iter(parts), ItemIdConfig(min_events=2)).tolist() == list(range(1, 10))


def test_counted_events_alone_make_an_item_known() -> None:
    windows = taste_windows(20, seed=0)
    columns = (windows[name].to_pylist() for name in ("item_hashes", "loss_mask"))
    expected = Counter(h for row in zip(*columns, strict=True) for h, m in zip(*row, strict=True) if m)
    found = item_counts(windows)
    assert dict(zip(found["hash"].to_pylist(), found["events"].to_pylist(), strict=True)) == expected


def test_a_vocabulary_goes_with_its_configuration() -> None:
    for config, hash_I in ((CONFIG, None), (RankerConfig(), torch.tensor([1]))):
        with pytest.raises(ValueError, match="go together"):
            build(config, LAYOUT, hash_I=hash_I)


def test_a_step_touches_the_rows_that_its_batch_names() -> None:
    windows = taste_windows(40, seed=1)
    hash_I = vocabulary([item_counts(windows)], ItemIdConfig())
    model = build(CONFIG, LAYOUT, hash_I=hash_I)
    table = model.items.identity.table.weight
    table.data[:-1].normal_()
    before = table.data.clone()
    training = Training(model, CONFIG, LAYOUT, 40)
    batch = collate(windows.slice(0, 2), LAYOUT)
    training.run_epoch(iter([batch]))
    named = torch.zeros(len(table), dtype=torch.bool)
    named[places_among(hash_I, batch.items).unique()] = True
    named[-1] = False  # padding, and whom nobody knows
    assert torch.equal((table.data != before).any(1), named)
    assert not table.data[-1].any()
    state = training.optimisers.by_name["tables"].state[table]
    assert torch.equal(state["exp_avg_sq"].any(1), named)


def test_a_first_step_is_that_of_dense_optimisers() -> None:
    """Clipped by the norm of all gradients, Adam's step, and the decay of the rows that were named; but for what is
    added to denominators, which is more in SparseAdam's first steps."""
    windows = taste_windows(30, seed=2)
    hash_I = vocabulary([item_counts(windows)], ItemIdConfig())
    config = CONFIG.model_copy(update={"weight_decay": 0.5, "max_gradient_norm": 0.05})
    weights = []
    for sparse in (True, False):
        model = build(config, LAYOUT, hash_I=hash_I)
        model.items.identity.table.sparse = sparse
        torch.manual_seed(0)
        model.items.identity.table.weight.data[:-1].normal_()
        training = Training(model, config, LAYOUT, 30)
        for optimiser in training.optimisers.by_name.values():
            optimiser.param_groups[0]["eps"] = 1e-14
        training.run_epoch(sorted_batches([windows], LAYOUT, 10**6))  # one batch, which names every row
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=1e-5)


def test_a_gradient_of_one_process_is_its_own_mean() -> None:
    rows = torch.from_numpy(np.array([[3, 1, 3]]))
    mean = mean_over_workers(torch.sparse_coo_tensor(rows, torch.ones(3, 2), (5, 2), check_invariants=True))
    assert mean.is_coalesced()
    assert mean.to_dense()[:, 0].tolist() == [0, 1, 0, 2, 0]


def test_a_model_without_tables_has_one_optimiser() -> None:
    assert Optimisers(build(RankerConfig(dim=8, heads=1), LAYOUT), CONFIG).by_name.keys() == {"optimiser"}

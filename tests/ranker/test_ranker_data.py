"""Windows as batches; the generated windows that the ranker's other tests train on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.requests import REQUEST, as_requests
from ranker.windows import (
    WindowError,
    bucket,
    check_windows,
    collate,
    counted_between,
    period,
    window_lengths,
    without_loss,
)
from schemas.semantic_id import Layout, item_hash

LAYOUT = Layout(2, 1, 1, 6)
TOKENIZER = "0123abcd"


def taste_windows(users: int, seed: int) -> pa.Table:
    """Rows of ``sequences``: an item's first code says how good it is, a user's past feedback how generous they are.

    A third of the items lacks its image; of long windows the first four positions are outside the loss mask.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        length = int(rng.integers(6, 31))
        codes = rng.integers(0, LAYOUT.codebook_size, (length, LAYOUT.slots))
        codes[rng.random(length) < 1 / 3, LAYOUT.spans()["image"]] = LAYOUT.absent
        quality = np.where(codes[:, 0] < LAYOUT.codebook_size // 2, 1.5, -1.5)
        liked = rng.random(length) < 1 / (1 + np.exp(-quality - 1.5 * (-1) ** user))
        items = [f"i{item}" for item in rng.integers(0, 1000, length)]
        rows.append(
            {
                "user_id": f"u{user}",
                "window": 0,
                "item_hashes": list(map(item_hash, items)),
                "item_ids": items,
                "tokens": codes.ravel(),
                "labels": liked.astype(np.int8),
                "feedback": None,
                "times": np.arange(length) * 1000,
                "loss_mask": np.arange(length) >= (4 if length > 20 else 0),
                "train_count": (counts := rng.integers(0, 200, length)),
                "train_clicks": counts // 2,
                "requests": np.arange(length) // 5,
                "known": np.arange(length) // 5 * 5,
                "latest": True,
                "split": "train",
                "tokenizer": TOKENIZER,
            }
        )
    types = {
        "window": pa.int32(),
        "item_hashes": pa.list_(pa.int64()),
        "item_ids": pa.list_(pa.string()),
        "tokens": pa.list_(pa.int16()),
        "labels": pa.list_(pa.int8()),
        "feedback": pa.list_(pa.float32()),
        "times": pa.list_(pa.int64()),
        "loss_mask": pa.list_(pa.bool_()),
        "train_count": pa.list_(pa.int32()),
        "train_clicks": pa.list_(pa.int32()),
        "requests": pa.list_(pa.int32()),
        "known": pa.list_(pa.int32()),
    }
    return pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]})


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 300), st.booleans())
def test_buckets_hold_every_window_once_within_budget(lengths: list[int], budget: int, shuffle: bool) -> None:
    array = np.array(lengths)
    batches = bucket(array, budget, np.random.default_rng(0) if shuffle else None)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * array[batch].max() <= budget


def test_collate_puts_every_row_at_the_front() -> None:
    windows = taste_windows(7, seed=3).slice(2)  # a slice's lists do not start at offset 0
    batch, lengths = collate(windows, LAYOUT), window_lengths(windows)
    for row, length in enumerate(lengths):
        expected = np.array(windows["tokens"][row].as_py()).reshape(length, LAYOUT.slots)
        np.testing.assert_array_equal(batch.tokens[row, :length], expected)
        assert batch.items[row, :length].tolist() == list(map(item_hash, windows["item_ids"][row].as_py()))
        assert batch.labels[row, :length].tolist() == windows["labels"][row].as_py()
        assert batch.loss_mask[row].tolist() == windows["loss_mask"][row].as_py() + [False] * (
            batch.loss_mask.shape[1] - length
        )


def test_periods_share_out_what_the_loss_masks_count() -> None:
    windows = taste_windows(20, seed=3).slice(3)
    first, last = period(windows)
    columns = (windows[name].to_pylist() for name in ("times", "loss_mask"))
    counted = [[t for t, m in zip(*row, strict=True) if m] for row in zip(*columns, strict=True)]
    assert (first, last) == (min(map(min, counted)), max(map(max, counted)))
    border = 12_000
    for part, wanted in (
        (counted_between(windows, before=border), [[t for t in times if t < border] for times in counted]),
        (counted_between(windows, since=border), [[t for t in times if t >= border] for times in counted]),
    ):
        assert part.schema == windows.schema
        columns = (part[name].to_pylist() for name in ("times", "loss_mask"))
        found = [[t for t, m in zip(*row, strict=True) if m] for row in zip(*columns, strict=True)]
        assert found == [times for times in wanted if times]  # windows with nothing left are gone
    assert period(without_loss(windows)) == (None, None)


def test_rows_that_do_not_fit_are_named() -> None:
    windows = taste_windows(4, seed=0)
    check_windows(windows, LAYOUT, TOKENIZER, 40)
    with pytest.raises(WindowError, match=f"{TOKENIZER}.*feedbeef"):
        check_windows(windows, LAYOUT, "feedbeef", 40)
    with pytest.raises(WindowError, match=r"ranker\.max_items is 5"):
        check_windows(windows, LAYOUT, TOKENIZER, 5)
    with pytest.raises(WindowError, match="5 an item"):
        check_windows(windows, Layout(2, 1, 2, 6), TOKENIZER, 40)
    with pytest.raises(WindowError, match="outside 0 to 2"):
        check_windows(windows, Layout(2, 1, 1, 2), TOKENIZER, 40)
    training = windows.set_column(
        windows.column_names.index("item_ids"), "item_ids", pa.nulls(windows.num_rows, pa.list_(pa.string()))
    )
    check_windows(training, LAYOUT, TOKENIZER, 40)
    with pytest.raises(WindowError, match="do not go with 0 item_ids"):
        check_windows(training, LAYOUT, TOKENIZER, 40, impressions=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.booleans())
def test_items_of_a_request_see_what_came_before_it(seed: int, simultaneous: bool) -> None:
    batch = collate(taste_windows(6, seed), LAYOUT)
    place_BN = torch.arange(batch.items.shape[1]).expand_as(batch.items)
    batch = replace(batch, seen=place_BN // 3 * 3 if simultaneous else None)
    before_BN = place_BN if batch.seen is None else batch.seen
    assert torch.equal(as_requests(batch, 0.0, np.random.default_rng(seed)).seen, before_BN)
    seen_BN = as_requests(batch, 1.0, np.random.default_rng(seed)).seen
    assert (seen_BN <= before_BN).all()
    assert (before_BN - seen_BN < REQUEST).all()
    assert simultaneous or all(len(row.unique()) <= 2 + len(row) // REQUEST for row in seen_BN)

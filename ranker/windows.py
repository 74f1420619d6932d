"""Rows of the ``sequences`` table as batches: checks, batches of similar length within a budget, padded tensors.

A row is one window of one user in time order. Only the end is padded, which causal attention never reads.

Letters: B windows, N items (the longest window of the batch), T semantic tokens of an item, P all items of all windows.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from schemas.semantic_id import Layout

MODEL_COLUMNS = ["user_id", "tokens", "item_hashes", "labels", "feedback", "times", "loss_mask", "tokenizer"]
IMPRESSION_COLUMNS = ["item_ids", "train_count", "train_clicks", "requests", "known"]

FOLDS = 8  # of users: factors of items are made without those that a step trains on

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class WindowBatch:
    """Padded windows: int64 ``tokens`` (B, N, T), ``items`` (B, N), hashes of the item ids, and ``labels`` (B, N); bool
    ``loss_mask`` (B, N), false in padding; float32 ``feedback`` (B, N), NaN where there is none; int64 ``seen`` (B, N),
    how many of the window's items are of an earlier time than each, None where that is its place in every window; int64
    ``fold`` (B,), of the users; int64 ``counted``, the places of the loss mask in all B·N: known where the batch is
    made, since a GPU would have to be waited for."""

    tokens: Tensor
    items: Tensor
    labels: Tensor
    loss_mask: Tensor
    feedback: Tensor
    seen: Tensor | None = None
    fold: Tensor | None = None
    counted: Tensor = None  # type: ignore[assignment]  # the loss mask's

    def __post_init__(self) -> None:
        if self.counted is None:
            object.__setattr__(self, "counted", self.loss_mask.flatten().nonzero().squeeze(1))

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """What a ranker's ``forward`` and ``remember`` take."""
        return self.tokens, self.items, self.labels, self.feedback, self.seen

    @property
    def windows(self) -> int:
        """Windows in the batch."""
        return len(self.tokens)

    @property
    def impressions(self) -> int:
        """Positions that the loss or the evaluation counts."""
        return len(self.counted)

    def to(self, device: torch.device) -> "WindowBatch":
        """The batch on ``device``; out of pinned memory nothing waits for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "WindowBatch":
        """The batch in memory that a GPU reads by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "WindowBatch":
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(x) for name, x in tensors.items() if x is not None})


class WindowError(ValueError):
    """Rows of ``sequences`` that this ranker cannot read."""


def check_windows(
    windows: pa.Table, layout: Layout, tokenizer: str, max_items: int, *, impressions: bool = False
) -> None:
    """Raise :class:`WindowError` unless all rows are of ``tokenizer``, fit the layout and ``max_items``.

    With ``impressions`` they must name their items, as those of the test split do.
    """
    foreign = sorted(set(pc.unique(windows["tokenizer"]).to_pylist()) - {tokenizer})
    if foreign:
        raise WindowError(
            f"the windows carry codes of tokenizer {', '.join(map(str, foreign))}, the ranker was made for "
            f"{tokenizer}: build the sequences of {tokenizer}, or train a ranker on the others"
        )
    lengths = window_lengths(windows)
    if len(lengths) and lengths.max() > max_items:
        raise WindowError(f"a window holds {lengths.max()} items where ranker.max_items is {max_items}")
    per_item_of = {"tokens": layout.slots, "item_hashes": 1, "times": 1, "loss_mask": 1}
    per_item_of |= {} if windows["feedback"].null_count == windows.num_rows else {"feedback": 1}
    per_item_of |= dict.fromkeys(("item_ids", "requests", "known") if impressions else (), 1)
    for column, per_item in per_item_of.items():
        wrong = np.flatnonzero(_list_lengths(windows[column]) != lengths * per_item)
        if len(wrong):
            raise WindowError(
                f"row {wrong[0]}: {lengths[wrong[0]]} labels do not go with "
                f"{_list_lengths(windows[column])[wrong[0]]} {column} ({per_item} an item)"
            )
    codes = flat(windows["tokens"])
    if len(codes) and (codes.min() < 0 or codes.max() > layout.absent):
        raise WindowError(f"codes run from {codes.min()} to {codes.max()}, outside 0 to {layout.absent}")


def window_lengths(windows: pa.Table) -> Indices:
    """Items in every window."""
    return _list_lengths(windows["labels"])


def collate(windows: pa.Table, layout: Layout) -> WindowBatch:
    """Rows as one padded batch."""
    real_BN = real_positions(windows)
    tokens_BNT = np.full((*real_BN.shape, layout.slots), layout.absent, np.int64)
    tokens_BNT[real_BN] = flat(windows["tokens"]).reshape(-1, layout.slots)
    items_BN = np.zeros(real_BN.shape, np.int64)
    items_BN[real_BN] = flat(windows["item_hashes"])
    labels_BN = np.zeros(real_BN.shape, np.int64)
    labels_BN[real_BN] = flat(windows["labels"])
    loss_mask_BN = np.zeros(real_BN.shape, bool)
    loss_mask_BN[real_BN] = flat(windows["loss_mask"])
    feedback_BN = np.full(real_BN.shape, np.nan, np.float32)
    feedback_BN[real_BN] = graded_feedback(windows)
    seen_BN = padded(windows, earlier(windows))
    alone = bool((seen_BN == torch.arange(seen_BN.shape[1])).all())
    return WindowBatch(
        torch.from_numpy(tokens_BNT),
        torch.from_numpy(items_BN),
        torch.from_numpy(labels_BN),
        torch.from_numpy(loss_mask_BN),
        torch.from_numpy(feedback_BN),
        None if alone else seen_BN,
        torch.from_numpy(user_folds(windows["user_id"].to_pylist())),
    )


def user_folds(users: Sequence[str]) -> Indices:
    """``(B,)``, a fold of every user id, a function of the id alone."""
    return np.array([zlib.crc32(str(user).encode()) % FOLDS for user in users], np.int64)


def padded(windows: pa.Table, values_P: np.ndarray) -> Tensor:
    """A value an item of the windows as ``(B, N)``, its place in the window in padding."""
    real_BN = real_positions(windows)
    values_BN = np.broadcast_to(np.arange(real_BN.shape[1], dtype=values_P.dtype), real_BN.shape).copy()
    values_BN[real_BN] = values_P
    return torch.from_numpy(values_BN)


def earlier(windows: pa.Table) -> Indices:
    """``(P,)``, how many items of its window are of an earlier time than each item: what it may know of."""
    times_P, lengths = flat(windows["times"]), window_lengths(windows)
    window_P, place_P = np.repeat(np.arange(len(lengths)), lengths), places(windows)
    fresh_P = np.append(True, (times_P[1:] != times_P[:-1]) | (window_P[1:] != window_P[:-1]))[: len(times_P)]
    return np.maximum.accumulate(np.where(fresh_P, np.arange(len(times_P)), 0)) - np.arange(len(times_P)) + place_P


def places(windows: pa.Table) -> Indices:
    """``(P,)``, the place of each item in its window."""
    lengths = window_lengths(windows)
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def graded_feedback(windows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """``(P,)``, NaN where there is none."""
    if windows["feedback"].null_count == windows.num_rows:
        return np.full(window_lengths(windows).sum(), np.nan, np.float32)
    return flat(windows["feedback"]).astype(np.float32)  # a null comes as NaN


def blank_batch(layout: Layout) -> WindowBatch:
    """One window of one position that counts for nothing: what a worker out of data steps with."""
    return WindowBatch(
        torch.full((1, 1, layout.slots), layout.absent),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.full((1, 1), torch.nan),
    )


def real_positions(windows: pa.Table) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Bool ``(B, N)``, false in padding."""
    lengths = window_lengths(windows)
    return np.arange(lengths.max()) < lengths[:, None]


def bucket(lengths: Indices, batch_items: int, rng: np.random.Generator | None = None) -> list[Indices]:
    """Split windows into batches of similar length, each within ``batch_items`` padded items (or one window).

    With ``rng``, equally long windows are mixed and the batches come in random order.
    """
    order = np.argsort(lengths, kind="stable") if rng is None else _shuffled_by_length(lengths, rng)
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * lengths[order[end]] > batch_items
        if full:
            batches.append(order[start:end])
            start = end
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def shuffled_batches(
    blocks: Iterable[pa.Table], layout: Layout, batch_items: int, rng: np.random.Generator
) -> Iterator[WindowBatch]:
    """Training batches of each block in turn; a block is what is shuffled and sorted by length at once."""
    for block in blocks:
        for indices in bucket(window_lengths(block), batch_items, rng):
            yield collate(block.take(indices), layout)


def sorted_batches(blocks: Iterable[pa.Table], layout: Layout, batch_items: int) -> Iterator[WindowBatch]:
    """Batches of each block in turn, the shortest windows first."""
    for block in blocks:
        for indices in bucket(window_lengths(block), batch_items):
            yield collate(block.take(indices), layout)


def period(windows: pa.Table) -> tuple[int | None, int | None]:
    """First and last time of what the loss masks count, milliseconds; none if they count nothing."""
    ends = pc.min_max(pa.array(flat(windows["times"])[flat(windows["loss_mask"]).astype(bool)], pa.int64())).as_py()
    return ends["min"], ends["max"]


def counted_between(windows: pa.Table, since: int | None = None, before: int | None = None) -> pa.Table:
    """The windows with what was seen outside of ``since`` to ``before``, milliseconds, taken from their loss masks;
    without those of which nothing is left."""
    times, mask = flat(windows["times"]), flat(windows["loss_mask"]).astype(bool)
    mask = mask & (since is None or times >= since) & (before is None or times < before)
    lengths = window_lengths(windows)
    window = np.repeat(np.arange(len(lengths)), lengths)
    counted = np.bincount(window, mask, minlength=len(lengths)) > 0
    return _with_loss(windows, mask, lengths).filter(pa.array(counted))


def without_loss(windows: pa.Table) -> pa.Table:
    """The windows with nothing in their loss masks."""
    lengths = window_lengths(windows)
    return _with_loss(windows, np.zeros(lengths.sum(), bool), lengths)


def _with_loss(windows: pa.Table, mask: np.ndarray, lengths: Indices) -> pa.Table:
    column = windows.schema.get_field_index("loss_mask")
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    masks = pa.ListArray.from_arrays(offsets, pa.array(mask, pa.bool_()))
    return windows.set_column(column, "loss_mask", masks.cast(windows.schema.field(column).type))


def _shuffled_by_length(lengths: Indices, rng: np.random.Generator) -> Indices:
    order = rng.permutation(len(lengths))
    return order[np.argsort(lengths[order], kind="stable")]


def _list_lengths(column: pa.ChunkedArray) -> Indices:
    return pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)


def flat(column: pa.ChunkedArray) -> np.ndarray:
    """The values of all lists, in order; nulls become NaN."""
    return pc.list_flatten(column).to_numpy(zero_copy_only=False)

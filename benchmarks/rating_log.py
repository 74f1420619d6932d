"""Ratings as plain arrays, without a lake: the log, what a text encoder says of the items, windows, and figures.

``FOLDER`` holds ``ratings.dat``, lines ``user::item::rating::time``, and ``items.csv``, sorted by its first column, an
id, with ``title``, ``genres`` and ``text``. The name of the id says what items are: ``movieId`` is that of MovieLens,
``wineId`` that of :mod:`benchmarks.wines`. Vectors are those of a text encoder in transformers' format: one of title
and genres, one of title, genres and text, and the built-in descriptor of title and genres, whose words name the year
and the genres apart, side by side; they are kept as ``FOLDER/text.safetensors``.

Letters: P events, ordered by user, time and item; N items, V width of their vectors, R test events, Q windows.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from pipeline.on_ray.encoders.builtin import TextDescriptor
from ranker.bootstrap import weightings
from ranker.tally import tally
from ranker.windows import FOLDS, WindowBatch
from schemas.semantic_id import item_hash

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LIKED = 3.5  # of five stars: four and more are liked
ITEMS = {"movieId": "films", "wineId": "wines"}
BLOCK = 20  # test events of a user that are scored by the history as it was before the first of them
TOKENS = 128


@dataclass(frozen=True)
class RatingLog:
    """Events with their rating; whether they are trained on or of the test; how many of the user's are of an earlier
    time, and how many were known when their block of the test began."""

    user_P: Ints
    item_P: Ints
    rating_P: Floats
    train_P: Mask
    test_P: Mask
    counted_P: Mask  # of test events, those that figures are of
    start_P: Ints  # place of the user's first event
    earlier_P: Ints
    known_P: Ints
    block_P: Ints  # a number, of test events
    hash_N: Ints
    hidden_N: Mask

    @property
    def liked_P(self) -> Ints:
        """Labels."""
        return (self.rating_P > LIKED).astype(np.int64)

    @property
    def count_N(self) -> Ints:
        """Training events of every item."""
        return np.bincount(self.item_P[self.train_P], minlength=len(self.hash_N))

    @property
    def counted_R(self) -> Mask:
        """Which test events figures are of."""
        return self.counted_P[self.test_P]


def load_log(folder: Path, hidden_class: int | None = None, validation: bool = False, rella: bool = False) -> RatingLog:
    """The log with the last tenth by time as test; ``hidden_class`` of seven (0 is that of the documentation) takes the
    training events of some items away; ``validation`` takes the last tenth of the training period as test, and the
    test away. ``rella`` splits as ReLLa (Lin et al. 2024) does: of the events with five of the user's before them the
    first 80 % by time are trained on, the next 10 % are for validation and otherwise history alone, the last are the
    test; others are in the history and the training period, but not counted."""
    raw_P4 = np.array((folder / "ratings.dat").read_bytes().replace(b"::", b" ").split(), np.float64).reshape(-1, 4)
    user_P, item_P, time_P = raw_P4[:, [0, 1, 3]].astype(np.int64).T
    item_N = np.array([int(next(iter(row.values()))) for row in _items(folder)], np.int64)
    order = np.lexsort((item_P.astype("U8"), time_P, user_P))
    user_P, item_P, time_P, rating_P = user_P[order], item_P[order], time_P[order], raw_P4[order, 2]
    counted_P = np.arange(len(order)) - np.searchsorted(user_P, user_P) >= 5 * rella
    shares = np.array([0.8 if rella else 0.9, 0.9]) * counted_P.sum()
    train_end, cut = np.sort(time_P[counted_P])[shares.astype(int)]
    kept_P = np.ones(len(time_P), bool)
    if validation:
        kept_P = time_P < cut
        cut = train_end = train_end if rella else np.sort(time_P[kept_P])[int(0.9 * kept_P.sum())]
    hidden_N = (item_N * 2654435761 % 2**32) % 7 == (-1 if hidden_class is None else hidden_class)
    place_P = np.searchsorted(item_N, item_P)
    kept_P &= ~hidden_N[place_P] | (time_P >= cut)
    user_P, time_P = np.unique(user_P[kept_P], return_inverse=True)[1], time_P[kept_P]
    number_P, test_P = np.arange(len(time_P)), time_P >= cut
    start_P = np.searchsorted(user_P, user_P)
    fresh_P = np.append(True, (np.diff(user_P) != 0) | (np.diff(time_P) != 0))
    earlier_P = np.maximum.accumulate(np.where(fresh_P, number_P, 0)) - start_P
    asked_R = np.flatnonzero(test_P)
    place_R = np.arange(len(asked_R)) - np.searchsorted(user_P[asked_R], user_P[asked_R])
    first_R = asked_R[np.arange(len(asked_R)) - place_R % BLOCK]
    known_P, block_P = earlier_P.copy(), np.full(len(time_P), -1)
    known_P[asked_R], block_P[asked_R] = earlier_P[first_R], np.unique(first_R, return_inverse=True)[1]
    hash_N = np.array([item_hash(str(item)) for item in item_N], np.int64)
    return RatingLog(
        user_P,
        place_P[kept_P],
        rating_P[kept_P],
        time_P < train_end,
        test_P,
        counted_P[kept_P],
        start_P,
        earlier_P,
        known_P,
        block_P,
        hash_N,
        hidden_N,
    )


def items_of(folder: Path) -> str:
    """What the items are, in the plural."""
    return ITEMS[next(iter(_items(folder)[0]))]


def _items(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "items.csv").open()))


def text_vectors(folder: Path, encoder: Path) -> Tensor:
    """``(N, V)`` float32."""
    file = folder / "text.safetensors"
    if not file.exists():
        items = _items(folder)
        short = [f"{item['title']}. {item['genres'].replace('|', ', ')}." for item in items]
        full = [f"{text} {item['text'][:1200]}" for text, item in zip(short, items, strict=True)]
        encoded = [torch.from_numpy(TextDescriptor()(short)), _encoded(short, encoder), _encoded(full, encoder)]
        save_file({"text": torch.cat(encoded, 1)}, file)
    return load_file(file)["text"]


@torch.inference_mode()
def _encoded(texts: list[str], encoder: Path) -> Tensor:
    """Normalised means of the last layer."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found: dict[int, Tensor] = {}
    for first in range(0, len(order), 64):
        some = order[first : first + 64]
        batch = tokenizer(
            [texts[n] for n in some], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        mask_BL1 = batch["attention_mask"][..., None]
        mean_BV = (model(**batch).last_hidden_state * mask_BL1).sum(1) / mask_BL1.sum(1)
        found |= dict(zip(some, F.normalize(mean_BV, dim=1), strict=True))
    return torch.stack([found[number] for number in range(len(texts))])


def cut_windows(log: RatingLog, max_items: int, *, test: bool) -> Ints:
    """``(Q, 3)``: first event, end, and first event that counts, as :mod:`pipeline.on_spark.sequences` cuts them."""
    found, step = [], max(1, max_items // 2)
    starts, wanted_P = np.unique(log.start_P), log.test_P if test else log.train_P
    for start, end in zip(starts, np.append(starts[1:], len(log.user_P)), strict=True):
        end = end if test else start + int(log.train_P[start:end].sum())
        for window in range(-(-max(end - start - max_items, 0) // step) + 1):
            first = start + window * step
            counts = first if window == 0 else first + max_items - step
            stop = min(first + max_items, end)
            if wanted_P[counts:stop].any():
                found.append((first, stop, counts))
    return np.array(found, np.int64)


def batch_of(log: RatingLog, windows_Q3: Ints, *, test: bool) -> tuple[Ints, WindowBatch]:
    """Places of the events (B, N), and the windows, whose only code is the number of the item."""
    first_B1, stop_B1, counts_B1 = (column[:, None] for column in windows_Q3.T)
    within_N = np.arange((stop_B1 - first_B1).max())
    place_BN = np.minimum(first_B1 + within_N, stop_B1 - 1)
    real_BN = first_B1 + within_N < stop_B1
    counted_BN = real_BN & (place_BN >= counts_B1) & (log.test_P if test else log.train_P)[place_BN]

    def padded(values_P: Ints | Floats, padding: int | Ints) -> Tensor:
        return torch.from_numpy(np.where(real_BN, values_P[place_BN], padding))

    offset_B1 = log.start_P[first_B1] - first_B1  # of a place in the user's history to one in the window
    return place_BN, WindowBatch(
        tokens=padded(log.item_P, len(log.hash_N))[..., None],
        items=padded(log.hash_N[log.item_P], 0),
        labels=padded(log.liked_P, 0),
        loss_mask=torch.from_numpy(counted_BN),
        feedback=padded(log.rating_P, 0).float().masked_fill_(torch.from_numpy(~real_BN), torch.nan),
        seen=padded(log.earlier_P, 0).add_(torch.from_numpy(offset_B1)).clamp_(min=0) * torch.from_numpy(real_BN)
        + torch.from_numpy(within_N * ~real_BN),
        fold=torch.from_numpy(log.user_P[first_B1[:, 0]] % FOLDS),
    )


def known_of(log: RatingLog, windows_Q3: Ints, place_BN: Ints, batch: WindowBatch) -> Tensor:
    """``(B, N)``, how many items of its window a test event may know if scored as its block is."""
    first_B1 = windows_Q3[:, :1]
    known_BN = np.maximum(log.known_P[place_BN] + log.start_P[place_BN] - first_B1, 0)
    assert batch.seen is not None
    return torch.minimum(torch.from_numpy(known_BN), batch.seen)


def figures(log: RatingLog, streamed_R: Tensor, frozen_R: Tensor) -> dict[str, float]:
    """Of probabilities of the test events in order: AUC and GAUC by user, streamed; GAUC by block of frozen scores; the
    same of slices of items."""
    asked_R = np.flatnonzero(log.test_P)
    user_R, item_R, label_R = log.user_P[asked_R], log.item_P[asked_R], log.liked_P[asked_R]
    count_R = log.count_N[item_R]

    def figure(scores_R: Tensor, group_R: Ints, mask_R: Mask) -> tuple[float, float]:
        numbers_R = np.unique(user_R[mask_R], return_inverse=True)[1]
        groups_R = np.unique(group_R[mask_R], return_inverse=True)[1]
        scores = scores_R.double().numpy()[mask_R]
        found = tally(numbers_R, groups_R, label_R[mask_R], scores, np.ones((numbers_R.max() + 1, 1))).figures()
        return float(found[0, 0]), float(found[1, 0])

    found = dict(zip(("auc", "gauc"), figure(streamed_R, user_R, log.counted_R), strict=True))
    found["gauc frozen"] = figure(frozen_R, log.block_P[asked_R], log.counted_R)[1]
    slices = {
        "1-10": (count_R > 0) & (count_R <= 10),
        "11-100": (count_R > 10) & (count_R <= 100),
        "101+": count_R > 100,
    }
    for name, mask_R in slices.items():
        if (mask_R & log.counted_R).any():
            found[f"gauc {name}"] = figure(streamed_R, user_R, mask_R & log.counted_R)[1]
    if log.hidden_N.any():
        mask_R = log.hidden_N[item_R] & log.counted_R
        found["auc new"], found["gauc new"] = figure(streamed_R, user_R, mask_R)
        found["gauc frozen new"] = figure(frozen_R, log.block_P[asked_R], mask_R)[1]
    return found


def paired_intervals(
    log: RatingLog, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]
) -> dict[str, list[float]]:
    """Differences of AUC, GAUC and frozen GAUC, each with its 95 % interval under a bootstrap of users."""
    asked_R = np.flatnonzero(log.test_P)[log.counted_R]
    user_R = np.unique(log.user_P[asked_R], return_inverse=True)[1]
    times_UW = weightings([str(user) for user in range(user_R.max() + 1)])
    found: dict[str, list[float]] = {}
    for place, group_R, names in ((0, user_R, ("auc", "gauc")), (1, log.block_P[asked_R], ("", "gauc frozen"))):
        a, b = (
            tally(user_R, group_R, log.liked_P[asked_R], pair[place].double().numpy()[log.counted_R], times_UW)
            for pair in (ours, theirs)
        )
        difference_FW = a.figures() - b.figures()
        intervals = a.intervals(difference_FW)
        for name, key, row in zip(names, ("auc", "gauc"), difference_FW, strict=False):
            if name:
                found[name] = [float(row[0]), *(intervals[key] or [])]
    return found

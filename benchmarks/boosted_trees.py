"""Gradient-boosted trees (LightGBM, Ke et al. 2017) on counts, rates and likeness of texts: what practice begins with.

What is known of an item: how many rated it in training, the rate at which they liked it, drawn towards what its text
tells (:mod:`benchmarks.item_rates`), their mean rating, the first components of its text. An event of training is
described without what the users of its fold said, since a rate that holds the label it is to foretell says too much.
What is known of the user are sums over the events before: how they were received, also beyond what their items' rates
let expect, and how much like the item those are that were liked, or not, on the whole and among the latest.

A share of the training events is described as if nobody had rated their item, so that trees know such items, too.

Letters: P events, R events to describe, N items, C components of a text, G folds of users and one of nobody, K latest
events.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.item_rates import RIDGE, told_by_text
from benchmarks.rating_log import Floats, Ints, Mask, RatingLog
from ranker.factors import principal_axes
from ranker.windows import FOLDS

TREES: dict[str, Any] = {
    "rounds": 400,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
}
UNKNOWN = 0.1  # of training events, those described as of an item that nobody rated
PRIOR_EVENTS = RIDGE["prior_events"]
COMPONENTS, TOLD_COMPONENTS = 64, 16
LATEST, SHARPNESS, FEW = 30, 8.0, 5.0
ROWS = 4096  # whose latest events are compared at once


def boosted_trees(log: RatingLog, vectors_NV: Tensor, settings: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Streamed and frozen probabilities of the test events, of trees grown on the training events, streamed."""
    import lightgbm

    of = Describer(log, vectors_NV)
    train_R, asked_R = np.flatnonzero(log.train_P), np.flatnonzero(log.test_P)
    unknown_R = np.random.default_rng(seed).random(len(train_R)) < UNKNOWN
    found = lightgbm.Dataset(of.rows(train_R, log.earlier_P[train_R], unknown_R), log.liked_P[train_R])
    fixed = {"objective": "binary", "seed": seed, "deterministic": True, "num_threads": 1, "verbose": -1}
    rounds = settings["rounds"]
    trees = lightgbm.train({k: v for k, v in settings.items() if k != "rounds"} | fixed, found, rounds)
    streamed_R, frozen_R = (trees.predict(of.rows(asked_R, seen_P[asked_R])) for seen_P in (log.earlier_P, log.known_P))
    return torch.from_numpy(streamed_R), torch.from_numpy(frozen_R)


class Describer:
    """Numbers that describe an event by the item and by the user's first so many events."""

    def __init__(self, log: RatingLog, vectors_NV: Tensor) -> None:
        self.log = log
        train_P = log.train_P
        self.fold_P = log.user_P % FOLDS
        self.mean = float(log.liked_P[train_P].mean())
        self.mean_rating = float(log.rating_P[train_P].mean())
        self.count_GN = self._sums(np.ones(len(log.user_P)))
        self.likes_GN, self.ratings_GN = self._sums(log.liked_P), self._sums(log.rating_P - self.mean_rating)
        self.told_N = told_by_text(log, vectors_NV, **RIDGE)
        text_NV = vectors_NV.double().numpy()
        centre_V, axes_VC = principal_axes(text_NV, log.count_N, COMPONENTS)
        self.text_NC = (text_NV - centre_V) @ axes_VC
        length_N1 = np.linalg.norm(self.text_NC, axis=1, keepdims=True)
        self.direction_NC = (self.text_NC / np.maximum(length_N1, 1e-9)).astype(np.float32)
        self.beyond_P = log.liked_P - self._rate(log.item_P, self.fold_P)
        self.direction_PC = self.direction_NC[log.item_P]

    def _sums(self, values_P: NDArray[Any]) -> Floats:
        """``(G, N)``: of training events by item, without each fold's users, at last of all."""
        train_P, items = self.log.train_P, len(self.log.hash_N)
        place_P = self.fold_P[train_P] * items + self.log.item_P[train_P]
        by_fold_GN = np.bincount(place_P, values_P[train_P], FOLDS * items).reshape(FOLDS, items)
        return np.r_[by_fold_GN.sum(0) - by_fold_GN, by_fold_GN.sum(0)[None]]

    def _rate(self, item_R: Ints, fold_R: Ints, known_R: Floats | float = 1.0) -> Floats:
        likes_R, count_R = self.likes_GN[fold_R, item_R] * known_R, self.count_GN[fold_R, item_R] * known_R
        found: Floats = (likes_R + PRIOR_EVENTS * self.told_N[item_R]) / (count_R + PRIOR_EVENTS)
        return found

    def rows(self, place_R: Ints, seen_R: Ints, unknown_R: Mask | None = None) -> NDArray[np.float32]:
        """``(R, …)`` of the events at ``place_R``, by the first ``seen_R`` of their users'; of training events without
        their folds."""
        start_R = self.log.start_P[place_R]
        end_R = start_R + seen_R
        known_R = np.ones(len(place_R)) if unknown_R is None else (~unknown_R).astype(np.float64)
        parts = (
            self._item(place_R, known_R),
            self._user(start_R, end_R),
            self._likeness(place_R, start_R, end_R),
            self._latest(place_R, start_R, end_R),
        )
        return np.concatenate(parts, 1, dtype=np.float32)

    def _item(self, place_R: Ints, known_R: Floats) -> Floats:
        item_R = self.log.item_P[place_R]
        fold_R = np.where(self.log.train_P[place_R], self.fold_P[place_R], FOLDS)
        count_R = self.count_GN[fold_R, item_R] * known_R
        rating_R = self.ratings_GN[fold_R, item_R] * known_R / (count_R + PRIOR_EVENTS)
        whole_R = np.where(fold_R == FOLDS, 1.0, FOLDS / (FOLDS - 1))
        numbers = self._rate(item_R, fold_R, known_R), rating_R, np.log1p(count_R * whole_R), self.told_N[item_R]
        return np.c_[np.stack(numbers, 1), self.text_NC[item_R, :TOLD_COMPONENTS]]

    def _user(self, start_R: Ints, end_R: Ints) -> Floats:
        """How many events there were, how they were received, and the latest ten of them."""
        log, numbers = self.log, [np.log1p(end_R - start_R)]
        for first_R in (start_R, np.maximum(start_R, end_R - 10)):
            few_R = end_R - first_R + FEW
            numbers += [between(x_P, first_R, end_R) / few_R for x_P in (log.liked_P - self.mean, self.beyond_P)]
        above_P = log.rating_P - self.mean_rating
        number_R = end_R - start_R
        mean_R = between(above_P, start_R, end_R) / (number_R + FEW)
        square_R = between(above_P**2, start_R, end_R) / (number_R + FEW)
        return np.stack([*numbers, mean_R, square_R - mean_R**2], 1)

    def _likeness(self, place_R: Ints, start_R: Ints, end_R: Ints) -> Floats:
        """Products of the item's direction with sums over the liked, the others, and all by what was beyond
        expectation."""
        liked_P = self.log.liked_P.astype(np.float64)
        weights = liked_P, 1 - liked_P, self.beyond_P
        found_R3 = np.zeros((len(place_R), len(weights)))
        for x_P in self.direction_PC.T:
            for column, weight_P in enumerate(weights):
                found_R3[:, column] += x_P[place_R] * between(x_P * weight_P, start_R, end_R)
        counts_R3 = np.stack([*(between(w_P, start_R, end_R) for w_P in weights[:2]), end_R - start_R], 1)
        return found_R3 / (counts_R3 + FEW)

    def _latest(self, place_R: Ints, start_R: Ints, end_R: Ints) -> Floats:
        """Among the latest events the greatest likeness to one that was liked, to another, and how those that are most
        alike were received, beyond expectation."""
        parts = [np.zeros((0, 3))]
        for first in range(0, len(place_R), ROWS):
            some = slice(first, first + ROWS)
            past_RK = end_R[some, None] - 1 - np.arange(LATEST)
            there_RK = past_RK >= start_R[some, None]
            past_RK = np.where(there_RK, past_RK, 0)
            like_RK = np.einsum("rc,rkc->rk", self.direction_PC[place_R[some]], self.direction_PC[past_RK])
            liked_RK = self.log.liked_P[past_RK] == 1
            weight_RK = np.exp(SHARPNESS * like_RK) * there_RK
            near_R = (weight_RK * self.beyond_P[past_RK]).sum(1) / (weight_RK.sum(1) + 1)
            greatest = (np.where(there_RK & kind_RK, like_RK, -1).max(1) for kind_RK in (liked_RK, ~liked_RK))
            parts.append(np.stack([*greatest, near_R], 1))
        return np.concatenate(parts)


def between(values_P: NDArray[Any], start_R: Ints, end_R: Ints) -> Floats:
    """``(R,)``: sums of the values from ``start_R`` to before ``end_R``."""
    sums_P = np.append(0.0, np.cumsum(values_P))
    found: Floats = sums_P[end_R] - sums_P[start_R]
    return found

"""How items were liked in training, and what a ridge regression from their text says of those that nobody knows.

An item's rate is taken as x β + a deviation of variance τ², about which what n events show of it has the variance
σ² / n. With s = σ² / τ² an item of n events counts n / (n + s) in the regression, and its rate is that of its events
drawn towards the text's as if that were s events.

Letters: N items, V width of their vectors, X = V + 1 with a constant, G folds of items.
"""

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.rating_log import Floats, RatingLog
from ranker.baselines.like_rate import ITEM_EVENTS, LEAST

RIDGE: dict[str, Any] = {"strength": 3.0, "prior_events": 20.0}
ITEM_FOLDS = 8


def like_rates(log: RatingLog) -> Floats:
    """``(N,)``: ten events of the mean rate added to those of the item."""
    likes_N, mean = _likes(log)
    return (likes_N + ITEM_EVENTS * mean) / (log.count_N + ITEM_EVENTS)


def rates_with_text(log: RatingLog, vectors_NV: Tensor, strength: float, prior_events: float) -> Floats:
    """``(N,)``: ``prior_events`` of the rate that the text tells added to those of the item."""
    likes_N, _ = _likes(log)
    told_N = told_by_text(log, vectors_NV, strength, prior_events, folds=1)
    return ((likes_N + prior_events * told_N) / (log.count_N + prior_events)).clip(LEAST, 1 - LEAST)


def told_by_text(
    log: RatingLog, vectors_NV: Tensor, strength: float, prior_events: float, folds: int = ITEM_FOLDS
) -> Floats:
    """``(N,)``: the rate by a ridge regression; with more than one fold of items each is told by the others, so that
    what a model learns of it on items that training knows holds for those it does not."""
    likes_N, mean = _likes(log)
    above_N = likes_N / np.maximum(log.count_N, 1) - mean
    weight_N = log.count_N / (log.count_N + prior_events)
    x_NX = np.c_[np.ones(len(vectors_NV)), vectors_NV.double().numpy()]
    fold_N, told_N = log.hash_N % folds, np.empty(len(x_NX))
    for fold in range(folds):
        used_N = weight_N * ((fold_N != fold) if folds > 1 else 1)
        system_XX = (x_NX * used_N[:, None]).T @ x_NX + np.diag([1e-6, *[strength] * (x_NX.shape[1] - 1)])
        beta_X = np.linalg.solve(system_XX, x_NX.T @ (used_N * above_N))
        told_N[fold_N == fold] = x_NX[fold_N == fold] @ beta_X
    return mean + told_N


def _likes(log: RatingLog) -> tuple[Floats, float]:
    liked_P = log.liked_P[log.train_P]
    likes_N: Floats = np.bincount(log.item_P[log.train_P], liked_P, len(log.hash_N)).astype(np.float64)
    return likes_N, float(liked_P.mean())

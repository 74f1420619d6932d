"""Sums over impressions that AUC, GAUC, log loss and calibration follow from, under every weighting of the users.

Tallies of parts of the data add up to that of the whole, as long as no request is torn apart, so that nothing of the
size of the data is ever in one place. Log loss and GAUC are exact. AUC is that of scores rounded to steps of 0.003 in
their logits, of which equal ones count half: less than 10⁻⁵ from the exact one. How it varies between replicates is
told by steps of 0.05.

Letters: R impressions, U users, G requests, K steps, J coarse steps, W weightings (:mod:`ranker.bootstrap`), F figures.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ranker.bootstrap import Floats, Ints, interval

FIGURES = ("auc", "gauc", "log_loss")
STEPS, COARSE = 8192, 512
LARGEST = 12.8  # logit of the last step
BINS = 10
EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Tally:
    """The sums; what has no W is of the first weighting, everybody once."""

    positive_K: Floats
    negative_K: Floats
    predicted_K: Floats
    positive_JW: NDArray[np.float32]
    negative_JW: NDArray[np.float32]
    loss_W: Floats
    auc_W: Floats  # of requests with both classes, times their impressions
    mixed_W: Floats  # impressions of requests with both classes
    counts: Ints  # of COUNTS

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def figures(self) -> Floats:
        """``(F, W)``, those of :data:`FIGURES`; NaN where undefined."""
        positive_JW, negative_JW = self.positive_JW.astype(np.float64), self.negative_JW.astype(np.float64)
        auc_W, impressions_W = _auc(positive_JW, negative_JW), (positive_JW + negative_JW).sum(0)
        auc_W = np.clip(auc_W - auc_W[0] + _auc(self.positive_K, self.negative_K), 0, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([auc_W, self.auc_W / self.mixed_W, self.loss_W / impressions_W])

    def intervals(self, figures_FW: Floats) -> dict[str, list[float] | None]:
        """The 95 % interval of every figure, or difference of figures; none where it rests on fewer than two users."""
        users, mixed = self.count("users"), self.count("mixed_users")
        rests_on = {"auc": users, "gauc": mixed, "log_loss": users}
        return {
            name: interval(draws_W[1:]) if rests_on[name] > 1 else None
            for name, draws_W in zip(FIGURES, figures_FW, strict=True)
        }

    def count(self, name: str) -> int:
        """One of :data:`COUNTS`."""
        return int(self.counts[COUNTS.index(name)])


COUNTS = ("impressions", "clicks", "users", "mixed_users", "requests", "mixed_requests", "one_class_impressions")


def _auc(positive_KW: Floats, negative_KW: Floats) -> Floats:
    """``(W,)`` of counts by step, ``(K,)`` or ``(K, W)``; a tie is half a win."""
    below_KW = np.cumsum(negative_KW, 0) - negative_KW / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((positive_KW * below_KW).sum(0) / (positive_KW.sum(0) * negative_KW.sum(0)))


def tally(user_R: Ints, request_R: Ints, labels_R: Ints, scores_R: Floats, times_UW: Floats) -> Tally:
    """The sums over some impressions.

    Args:
        user_R: rows of ``times_UW``.
        request_R: numbers of requests, no two users' the same.
        labels_R: 0 or 1.
        scores_R: float64, click probabilities.
        times_UW: how often users count.
    """
    users, clicked_R = len(times_UW), labels_R == 1
    step_R = steps(scores_R)
    coarse_R = step_R // (STEPS // COARSE)
    of_kind = (
        csr_matrix((np.ones(int(kind_R.sum())), (coarse_R[kind_R], user_R[kind_R])), (COARSE, users))
        for kind_R in (clicked_R, ~clicked_R)
    )
    positive_JW, negative_JW = (counts_JU @ times_UW for counts_JU in of_kind)
    likelihood_R = np.where(clicked_R, scores_R, 1 - scores_R).clip(EPS, 1 - EPS)
    _, first_G, request_R, size_G = np.unique(request_R, return_index=True, return_inverse=True, return_counts=True)
    auc_G, user_G = grouped_aucs(request_R, labels_R, scores_R), user_R[first_G]
    mixed_G = ~np.isnan(auc_G)
    loss_U = _sums(user_R, -np.log(likelihood_R), users)
    auc_U = _sums(user_G[mixed_G], (auc_G * size_G)[mixed_G], users)
    size_U = _sums(user_G[mixed_G], size_G[mixed_G], users)
    counts = {
        "impressions": len(labels_R),
        "clicks": clicked_R.sum(),
        "users": len(np.unique(user_R)),
        "mixed_users": len(np.unique(user_G[mixed_G])),
        "requests": len(size_G),
        "mixed_requests": mixed_G.sum(),
        "one_class_impressions": size_G[~mixed_G].sum(),
    }
    return Tally(
        _sums(step_R, clicked_R, STEPS),
        _sums(step_R, ~clicked_R, STEPS),
        _sums(step_R, scores_R, STEPS),
        positive_JW.astype(np.float32),
        negative_JW.astype(np.float32),
        loss_U @ times_UW,
        auc_U @ times_UW,
        size_U @ times_UW,
        np.array([counts[name] for name in COUNTS], np.int64),
    )


def _sums(place_R: Ints, values_R: NDArray[Any], places: int) -> Floats:
    return np.bincount(place_R, values_R, places).astype(np.float64)


def steps(scores_R: Floats) -> Ints:
    """``(R,)``, the step of each probability's logit."""
    with np.errstate(divide="ignore"):
        logits_R = np.log(scores_R) - np.log1p(-scores_R)
    within_R = (np.nan_to_num(logits_R, nan=0.0).clip(-LARGEST, LARGEST) + LARGEST) / (2 * LARGEST)
    return np.minimum((within_R * STEPS).astype(np.int64), STEPS - 1)


def grouped_aucs(group_R: Ints, labels_R: Ints, scores_R: Floats) -> Floats:
    """``(G,)``, each group's own AUC, NaN where all labels are of one class; groups are numbered without gaps."""
    _, level_R = np.unique(scores_R, return_inverse=True)
    key_R = group_R * len(group_R) + level_R  # sorts by group, then by score
    clicked_R = labels_R == 1
    group_P, group_N = group_R[clicked_R], group_R[~clicked_R]
    groups = int(group_R.max(initial=-1)) + 1
    positives_G, negatives_G = np.bincount(group_P, minlength=groups), np.bincount(group_N, minlength=groups)
    sorted_N = np.sort(key_R[~clicked_R])
    below_P, upto_P = (np.searchsorted(sorted_N, key_R[clicked_R], side) for side in ("left", "right"))
    first_G = np.cumsum(negatives_G) - negatives_G
    wins_G = np.bincount(group_P, (below_P + upto_P) / 2 - first_G[group_P], groups)
    with np.errstate(invalid="ignore"):
        return wins_G / (positives_G * negatives_G)


def calibration(found: Tally) -> dict[str, object]:
    """``error``, the expected calibration error over bins of about equally many impressions (equal scores stay
    together), ``ratio`` of the mean prediction to the mean label, and the ``bins``."""
    positive_K, size_K = found.positive_K, found.positive_K + found.negative_K
    total = size_K.sum()
    bin_K = ((np.cumsum(size_K) - size_K) * BINS // max(total, 1)).astype(np.int64)
    sums = (np.bincount(bin_K, values_K, BINS) for values_K in (size_K, found.predicted_K, positive_K))
    size, predicted, observed = sums
    return {
        "error": float(np.abs(predicted - observed).sum() / total) if total else None,
        "ratio": float(predicted.sum() / observed.sum()) if observed.any() else None,
        "bins": [
            {"impressions": int(n), "predicted": float(p / n), "observed": float(o / n)}
            for n, p, o in zip(size, predicted, observed, strict=True)
            if n
        ],
    }

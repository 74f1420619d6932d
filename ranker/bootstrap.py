"""AUC, GAUC and log loss under a bootstrap of users: whole users are drawn again, with all their impressions.

Impressions of one user depend on each other, so drawing impressions would give intervals that are too narrow. Each
figure is a function of how often every user counts, so a replicate is a few passes over what was sorted once.

Letters: R impressions, P positive ones, N negative ones, U users, S users of one sample, B replicates, F figures.
"""

from collections.abc import Sequence

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

FIGURES = ("auc", "gauc", "log_loss")
REPLICATES = 1000
PERCENTILES = (2.5, 97.5)


class Sample:
    """Figures of a set of impressions, as functions of how often every user counts.

    Args:
        users_R: int64, numbers of the users.
        labels_R: 0 or 1.
        scores_R: float64, click probabilities.
    """

    def __init__(self, users_R: Ints, labels_R: Ints, scores_R: Floats) -> None:
        self.user_S, user_R, self.size_S = np.unique(users_R, return_inverse=True, return_counts=True)
        self.auc_S = user_aucs(user_R, labels_R, scores_R)
        clicked_R = labels_R == 1
        self.clicks = int(clicked_R.sum())
        likelihood_R = np.where(clicked_R, scores_R, 1 - scores_R)
        eps = np.finfo(np.float64).eps
        self._loss_S = np.bincount(user_R, -np.log(likelihood_R.clip(eps, 1 - eps)), len(self.user_S))
        order_R = np.argsort(scores_R)
        positive_P, negative_N = (order_R[clicked_R[order_R] == kind] for kind in (True, False))
        self._user_P, self._user_N = user_R[positive_P], user_R[negative_N]
        self._below_P, self._upto_P = _places(scores_R[negative_N], scores_R[positive_P])

    def figures(self, times_U: Floats | None = None) -> Floats:
        """``(F,)``, those of :data:`FIGURES`, every user counted ``times_U`` times, else once; NaN where undefined."""
        times_S = np.ones(len(self.user_S)) if times_U is None else times_U[self.user_S]
        times_P, negatives = times_S[self._user_P], np.append(0, np.cumsum(times_S[self._user_N]))
        wins = times_P @ (negatives[self._below_P] + negatives[self._upto_P]) / 2  # a tie is half a win
        size_S = times_S * self.size_S
        mixed_S = ~np.isnan(self.auc_S)
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = wins / (times_P.sum() * negatives[-1])
            gauc = (size_S[mixed_S] @ self.auc_S[mixed_S]) / size_S[mixed_S].sum()
            return np.array([auc, gauc, (times_S @ self._loss_S) / size_S.sum()])

    def intervals(self, draws_BF: Floats) -> dict[str, list[float] | None]:
        """The 95 % interval of every figure, or difference of figures, from its replicates on this sample.

        Replicates that leave it undefined do not count; one that rests on fewer than two users has no interval.
        """
        mixed = int((~np.isnan(self.auc_S)).sum())
        rests_on = {"auc": len(self.user_S), "gauc": mixed, "log_loss": len(self.user_S)}
        return {
            name: _interval(draws_B) if rests_on[name] > 1 else None
            for name, draws_B in zip(FIGURES, draws_BF.T, strict=True)
        }


def bootstrap(samples: Sequence[Sample], users: int, replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Figures ``(samples, B, F)``; in a replicate all samples see the same draw of ``users`` users."""
    rng = np.random.default_rng(seed)
    found = np.empty((len(samples), replicates, len(FIGURES)))
    for replicate in range(replicates):
        times_U = np.bincount(rng.integers(0, max(users, 1), users), minlength=users).astype(np.float64)
        found[:, replicate] = [sample.figures(times_U) for sample in samples]
    return found


def user_aucs(user_R: Ints, labels_R: Ints, scores_R: Floats) -> Floats:
    """``(S,)``, each user's own AUC, NaN where all labels are of one class; users are numbered from 0 without gaps."""
    _, level_R = np.unique(scores_R, return_inverse=True)
    key_R = user_R * len(user_R) + level_R  # sorts by user, then by score
    clicked_R = labels_R == 1
    user_P, user_N = user_R[clicked_R], user_R[~clicked_R]
    users = int(user_R.max(initial=-1)) + 1
    positives_S, negatives_S = np.bincount(user_P, minlength=users), np.bincount(user_N, minlength=users)
    below_P, upto_P = _places(np.sort(key_R[~clicked_R]), key_R[clicked_R])
    first_S = np.cumsum(negatives_S) - negatives_S
    wins_S = np.bincount(user_P, (below_P + upto_P) / 2 - first_S[user_P], users)
    with np.errstate(invalid="ignore"):
        return wins_S / (positives_S * negatives_S)


def _places(sorted_N: np.ndarray, values_P: np.ndarray) -> tuple[Ints, Ints]:
    """How many of ``sorted_N`` lie below each value, and how many do not lie above it."""
    return np.searchsorted(sorted_N, values_P, "left"), np.searchsorted(sorted_N, values_P, "right")


def _interval(draws_B: Floats) -> list[float] | None:
    defined = draws_B[~np.isnan(draws_B)]
    return np.percentile(defined, PERCENTILES).tolist() if len(defined) else None

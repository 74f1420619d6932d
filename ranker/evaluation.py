"""How good a ranker is: AUC, GAUC, log loss, over all impressions and by how often an item was trained on.

GAUC is the mean of the users' own AUCs weighted by their impressions (Zhu et al., DIN); a user whose impressions
are all of one class has none, is left out and counted.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import log_loss, roc_auc_score

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

SLICES = {"0": (0, 0), "1-10": (1, 10), "11-100": (11, 100), "101+": (101, 2**62)}


def report(impressions: pa.Table) -> dict[str, Any]:
    """Figures over all impressions, and in ``slices`` those of items by ``train_count``.

    Args:
        impressions: a row an impression: ``user_id``, ``label`` (0 or 1), ``score`` (click probability),
            ``train_count`` (how often the item occurs in training).

    Returns:
        A dictionary that JSON can hold; a figure that the impressions do not define is ``None``.
    """
    _, users = np.unique(impressions["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    labels = impressions["label"].to_numpy().astype(np.int64)
    scores = impressions["score"].to_numpy().astype(np.float64)
    counts = impressions["train_count"].to_numpy()
    figures = measure(users, labels, scores)
    inside = {name: (low <= counts) & (counts <= high) for name, (low, high) in SLICES.items()}
    return figures | {
        "slices": {name: measure(users[rows], labels[rows], scores[rows]) for name, rows in inside.items()}
    }


def measure(users: Ints, labels: Ints, scores: Floats) -> dict[str, Any]:
    """Figures of one set of impressions."""
    two_classes = len(np.unique(labels)) == 2
    return {
        "impressions": len(labels),
        "positive_rate": float(labels.mean()) if len(labels) else None,
        "auc": float(roc_auc_score(labels, scores)) if two_classes else None,
        "log_loss": float(log_loss(labels, scores, labels=[0, 1])) if len(labels) else None,
        **grouped_auc(users, labels, scores),
    }


def grouped_auc(users: Ints, labels: Ints, scores: Floats) -> dict[str, Any]:
    """``gauc`` and the users and impressions it rests on or leaves out, all users at once by rank sums."""
    _, users, sizes = np.unique(users, return_inverse=True, return_counts=True)
    positives = np.bincount(users, labels, len(sizes))
    rank_sums = np.bincount(users, _ranks_within(users, scores) * labels, len(sizes))
    negatives = sizes - positives
    mixed = (positives > 0) & (negatives > 0)
    aucs = (rank_sums - positives * (positives + 1) / 2)[mixed] / (positives * negatives)[mixed]
    return {
        "gauc": float(np.average(aucs, weights=sizes[mixed])) if mixed.any() else None,
        "gauc_users": int(mixed.sum()),
        "one_class_users": int((~mixed).sum()),
        "one_class_impressions": int(sizes[~mixed].sum()),
    }


def _ranks_within(users: Ints, scores: Floats) -> Floats:
    """Rank of each score among its user's, from 1, ties sharing their mean rank."""
    order = np.lexsort((scores, users))
    users, scores = users[order], scores[order]
    position = np.arange(len(order))
    new_user = np.append(True, users[1:] != users[:-1])[: len(order)]
    new_run = np.append(True, scores[1:] != scores[:-1])[: len(order)] | new_user
    run = np.cumsum(new_run) - 1
    run_first = position[new_run]
    run_last = np.append(run_first[1:], len(order)) - 1
    user_first = position[new_user][np.cumsum(new_user) - 1]
    ranks = np.empty(len(order))
    ranks[order] = ((run_first + run_last) / 2)[run] - user_first + 1
    return ranks

"""How good a ranker is: AUC, GAUC, log loss, calibration, with intervals; and how much better than another.

GAUC is the mean of the users' own AUCs weighted by their impressions (Zhu et al., DIN); a user whose impressions
are all of one class has none, is left out and counted. Intervals are of 95 %, from a bootstrap of users.

R impressions, U users, S users of a slice.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.bootstrap import FIGURES, REPLICATES, Floats, Ints, Sample, bootstrap, user_aucs

COUNTS = {"0": (0, 0), "1-10": (1, 10), "11-100": (11, 100), "101+": (101, 2**62)}
MISSING = ("none", "text", "image")
IMPRESSION = ("user_id", "item_id", "label")
BINS = 10

Masks = dict[str, np.ndarray]


class ImpressionError(ValueError):
    """Two rankers were not scored on the same impressions."""


def report(impressions: pa.Table, replicates: int = REPLICATES) -> dict[str, Any]:
    """Figures and ``calibration`` over all impressions; figures in slices: ``slices`` by ``train_count``,
    ``by_history``, ``by_missing``. ``intervals`` go with each.

    Args:
        impressions: a row an impression: ``user_id``, ``label`` (0 or 1), ``score`` (click probability),
            ``train_count`` (how often the item occurs in training), ``history`` (earlier items that the ranker saw),
            ``missing`` (the modality that the item lacks, or ``none``).
        replicates: of the bootstrap.

    Returns:
        A dictionary that JSON can hold; what the impressions do not define is ``None``.
    """
    columns = users, labels, scores = _columns(impressions)
    missing = impressions["missing"].to_numpy(zero_copy_only=False)
    slices: dict[str, Masks] = {
        "slices": _by_count(impressions["train_count"]),
        "by_history": _by_count(impressions["history"]),
        "by_missing": {name: missing == name for name in MISSING},
    }
    samples = [Sample(*columns), *(_sample(columns, mask) for by in slices.values() for mask in by.values())]
    draws = bootstrap(samples, _users(users), replicates)
    whole, *parts = (measure(s) | {"intervals": s.intervals(d)} for s, d in zip(samples, draws, strict=True))
    remaining = iter(parts)
    sliced = {by: {name: next(remaining) for name in masks} for by, masks in slices.items()}
    return whole | {"calibration": calibration(labels, scores)} | sliced


def compare(a: pa.Table, b: pa.Table, replicates: int = REPLICATES) -> dict[str, Any]:
    """``differences``, a's figures less b's on the same impressions, and their paired ``intervals``: every replicate
    draws the same users for both. Over all impressions, and in ``slices`` by the ``train_count`` of ``a``.

    Raises:
        ImpressionError: ``a`` and ``b`` are not of the same users, items and labels.
    """
    a, b = (rows.sort_by([(name, "ascending") for name in IMPRESSION]) for rows in (a, b))
    _check_same(a, b)
    ours, theirs = _columns(a), _columns(b)
    everything = np.ones(a.num_rows, bool)
    masks = {"all": everything} | _by_count(a["train_count"])
    pairs = [(_sample(ours, mask), _sample(theirs, mask)) for mask in masks.values()]
    draws = bootstrap([sample for pair in pairs for sample in pair], _users(ours[0]), replicates)
    found = {
        name: {
            "impressions": int(mask.sum()),
            "differences": _named(our.figures() - their.figures()),
            "intervals": our.intervals(our_draws - their_draws),
        }
        for (name, mask), (our, their), our_draws, their_draws in zip(
            masks.items(), pairs, draws[::2], draws[1::2], strict=True
        )
    }
    return found.pop("all") | {"slices": found}


def measure(sample: Sample) -> dict[str, Any]:
    """Figures of one set of impressions, without intervals."""
    impressions = int(sample.size_S.sum())
    return (
        {"impressions": impressions, "positive_rate": sample.clicks / impressions if impressions else None}
        | _named(sample.figures())
        | _grouped(sample.auc_S, sample.size_S)
    )


def grouped_auc(users: Ints, labels: Ints, scores: Floats) -> dict[str, Any]:
    """``gauc`` and the users and impressions it rests on or leaves out, all users at once."""
    _, user_R, size_S = np.unique(users, return_inverse=True, return_counts=True)
    return _grouped(user_aucs(user_R, labels, scores), size_S)


def calibration(labels: Ints, scores: Floats) -> dict[str, Any]:
    """``error``, the expected calibration error over bins of equally many impressions (equal scores stay together),
    ``ratio`` of the mean prediction to the mean label, and the ``bins``."""
    first_R = np.searchsorted(np.sort(scores), scores)
    bin_R = first_R * BINS // max(len(scores), 1)
    size, predicted, observed = (np.bincount(bin_R, weights, BINS) for weights in (None, scores, labels))
    return {
        "error": float(np.abs(predicted - observed).sum() / len(scores)) if len(scores) else None,
        "ratio": float(scores.sum() / labels.sum()) if labels.any() else None,
        "bins": [
            {"impressions": int(n), "predicted": float(p / n), "observed": float(o / n)}
            for n, p, o in zip(size, predicted, observed, strict=True)
            if n
        ],
    }


def _grouped(auc_S: Floats, size_S: Ints) -> dict[str, Any]:
    mixed_S = ~np.isnan(auc_S)
    return {
        "gauc": float(np.average(auc_S[mixed_S], weights=size_S[mixed_S])) if mixed_S.any() else None,
        "gauc_users": int(mixed_S.sum()),
        "one_class_users": int((~mixed_S).sum()),
        "one_class_impressions": int(size_S[~mixed_S].sum()),
    }


def _check_same(a: pa.Table, b: pa.Table) -> None:
    a, b = (pa.table({name: rows[name] for name in IMPRESSION}) for rows in (a, b))
    if a.num_rows != b.num_rows:
        raise ImpressionError(f"the impressions are not the same: {a.num_rows:,} and {b.num_rows:,}")
    same = np.logical_and.reduce([pc.equal(a[name], b[name]).to_numpy() for name in IMPRESSION])
    if not same.all():
        row = int(np.argmin(same))
        first, second = (rows.slice(row, 1).to_pylist()[0] for rows in (a, b))
        raise ImpressionError(f"the impressions are not the same: {first} of one, {second} of the other")


def _columns(impressions: pa.Table) -> tuple[Ints, Ints, Floats]:
    """Users as numbers in the order of their ids, so that figures do not depend on the order of rows."""
    _, users = np.unique(impressions["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    return users, impressions["label"].to_numpy().astype(np.int64), impressions["score"].to_numpy().astype(np.float64)


def _users(users: Ints) -> int:
    return int(users.max(initial=-1)) + 1


def _sample(columns: tuple[Ints, Ints, Floats], mask: np.ndarray) -> Sample:
    users, labels, scores = columns
    return Sample(users[mask], labels[mask], scores[mask])


def _by_count(column: pa.ChunkedArray) -> Masks:
    counts = column.to_numpy()
    return {name: (low <= counts) & (counts <= high) for name, (low, high) in COUNTS.items()}


def _named(figures: Floats) -> dict[str, float | None]:
    return {name: None if np.isnan(x) else float(x) for name, x in zip(FIGURES, figures, strict=True)}

"""How good a ranker is: AUC, GAUC, log loss, calibration, with intervals; how much better than another; and beside what
the cheapest rules get on the same impressions.

A ranker ranks the candidates of one request by what was known before it, so the primary figures are of *frozen*
scores, each made from the user's history as it was when the request began, and GAUC is the mean of the requests' own
AUCs weighted by their impressions. A request whose impressions are all of one class has none, is left out and counted.

The *streamed* figures, whose memory runs on from impression to impression and whose GAUC is by user (Zhu et al., DIN),
stand beside them. They punish what follows a user's own rate: a click raises the scores of all that comes after it, so
that within a user scores and labels are anti-correlated. Where labels are coin flips given the user they say far less
than .5.

Intervals are of 95 %, from a bootstrap of users. R impressions, U users, W weightings of the users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ranker.bootstrap import REPLICATES, Floats, Ints, user_numbers, weightings
from ranker.tally import FIGURES, Tally, calibration, grouped_aucs, tally
from schemas.mixing import scattered

COUNTS = {"0": (0, 0), "1-10": (1, 10), "11-100": (11, 100), "101+": (101, 2**62)}
MISSING = ("none", "text", "image")
WHOLE, STREAMED = "score", "streamed"

Masks = dict[str, np.ndarray]


class ImpressionError(ValueError):
    """Two rankers were not scored on the same impressions."""


@dataclass(frozen=True)
class Tallies:
    """A tally of every score column and slice, and a ``digest`` of the impressions in any order."""

    by_name: dict[str, Tally]
    digest: int

    def __add__(self, other: "Tallies") -> "Tallies":
        parts = {name: part + other.by_name[name] for name, part in self.by_name.items()}
        return Tallies(parts, (self.digest + other.digest) % 2**64)


def streamed(name: str) -> str:
    """The column of a reference's streamed scores."""
    return f"{name}, {STREAMED}"


def tallies(impressions: pa.Table, references: Sequence[str] = (), replicates: int = REPLICATES) -> Tallies:
    """The tallies of impressions, with whole requests among them.

    Args:
        impressions: a row an impression: ``user_id``, ``item_hash``, ``request`` (a number, of the user), ``label`` (0
            or 1), ``score`` and ``streamed`` (click probabilities, frozen and streamed), ``train_count`` (how often
            the item occurs in training), ``history`` (earlier items that the frozen score knows), ``missing`` (the
            modality that the item lacks, or ``none``), and both scores of every reference: a column of its name, and
            :func:`streamed`.
        references: their names.
        replicates: of the bootstrap.
    """
    names, user_R = np.unique(impressions["user_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    request_R = _numbered(user_R, impressions["request"].to_numpy().astype(np.int64))
    labels_R, times_UW = impressions["label"].to_numpy().astype(np.int64), weightings(names.tolist(), replicates)

    def of(column: str, group_R: Ints, mask_R: np.ndarray | slice = slice(None)) -> Tally:
        scores_R = impressions[column].to_numpy().astype(np.float64)
        return tally(user_R[mask_R], group_R[mask_R], labels_R[mask_R], scores_R[mask_R], times_UW)

    found = {WHOLE: of(WHOLE, request_R), STREAMED: of(STREAMED, user_R)}
    for name in references:
        found |= {name: of(name, request_R), streamed(name): of(streamed(name), user_R)}
    for by, masks in _slices(impressions).items():
        found |= {f"{by}/{name}": of(WHOLE, request_R, mask_R) for name, mask_R in masks.items()}
    return Tallies(found, _digest(names.tolist(), user_R, impressions["item_hash"].to_numpy(), labels_R))


def report(impressions: pa.Table, references: Sequence[str] = (), replicates: int = REPLICATES) -> dict[str, Any]:
    """:func:`measure` of impressions that fit into memory, see :func:`tallies`."""
    return measure(tallies(impressions, references, replicates), references)


def measure(found: Tallies, references: Sequence[str] = ()) -> dict[str, Any]:
    """Figures, ``calibration`` and the ``streamed`` figures over all impressions; ``references``, each with its figures
    and the ranker's less its own; frozen figures in slices: ``slices`` by ``train_count``, ``by_history``,
    ``by_missing``. ``intervals`` go with each.

    Returns:
        A dictionary that JSON can hold; what the impressions do not define is ``None``.
    """
    parts = found.by_name
    beside = {
        name: _figures(parts[name])
        | {"streamed": _figures(parts[streamed(name)]), "ranker_less": _difference(parts[WHOLE], parts[name])}
        for name in references
    }
    sliced = {
        by: {name: _figures(parts[f"{by}/{name}"]) for name in names}
        for by, names in (("slices", COUNTS), ("by_history", COUNTS), ("by_missing", MISSING))
    }
    whole = _figures(parts[WHOLE]) | {"streamed": _figures(parts[STREAMED]), "references": beside}
    return whole | {"calibration": calibration(parts[WHOLE])} | sliced


def compare(a: Tallies, b: Tallies) -> dict[str, Any]:
    """``differences``, a's figures less b's on the same impressions, and their paired ``intervals``: every replicate
    draws the same users for both. Over all impressions, ``streamed``, and in ``slices`` by ``train_count``.

    Raises:
        ImpressionError: ``a`` and ``b`` are not of the same users, items and labels.
    """
    ours, theirs = (found.by_name[WHOLE].count("impressions") for found in (a, b))
    if ours != theirs:
        raise ImpressionError(f"the impressions are not the same: {ours:,} and {theirs:,}")
    if a.digest != b.digest:
        raise ImpressionError(f"the {ours:,} impressions are not of the same users, items and labels")

    def less(name: str) -> dict[str, Any]:
        return _difference(a.by_name[name], b.by_name[name])

    return less(WHOLE) | {"streamed": less(STREAMED), "slices": {name: less(f"slices/{name}") for name in COUNTS}}


def grouped_auc(groups_R: Ints, labels_R: Ints, scores_R: Floats) -> dict[str, Any]:
    """``gauc`` by any groups (users, requests), of how many, ``gauc_groups``, and how many are of one class."""
    _, group_R, size_G = np.unique(groups_R, return_inverse=True, return_counts=True)
    auc_G = grouped_aucs(group_R, labels_R, scores_R)
    mixed_G = ~np.isnan(auc_G)
    return {
        "gauc": float(np.average(auc_G[mixed_G], weights=size_G[mixed_G])) if mixed_G.any() else None,
        "gauc_groups": int(mixed_G.sum()),
        "one_class_groups": int((~mixed_G).sum()),
        "one_class_impressions": int(size_G[~mixed_G].sum()),
    }


def _figures(found: Tally) -> dict[str, Any]:
    impressions, figures_FW = found.count("impressions"), found.figures()
    requests, mixed = found.count("requests"), found.count("mixed_requests")
    return (
        {"impressions": impressions, "positive_rate": found.count("clicks") / impressions if impressions else None}
        | _named(figures_FW[:, 0])
        | {"gauc_groups": mixed, "one_class_groups": requests - mixed}
        | {"one_class_impressions": found.count("one_class_impressions"), "intervals": found.intervals(figures_FW)}
    )


def _difference(ours: Tally, theirs: Tally) -> dict[str, Any]:
    less_FW = ours.figures() - theirs.figures()
    return {
        "impressions": ours.count("impressions"),
        "differences": _named(less_FW[:, 0]),
        "intervals": ours.intervals(less_FW),
    }


def _slices(impressions: pa.Table) -> dict[str, Masks]:
    missing = impressions["missing"].to_numpy(zero_copy_only=False)
    return {
        "slices": _by_count(impressions["train_count"]),
        "by_history": _by_count(impressions["history"]),
        "by_missing": {name: missing == name for name in MISSING},
    }


def _by_count(column: pa.ChunkedArray) -> Masks:
    counts = column.to_numpy()
    return {name: (low <= counts) & (counts <= high) for name, (low, high) in COUNTS.items()}


def _numbered(user_R: Ints, request_R: Ints) -> Ints:
    """A number a request, other users' others."""
    least = request_R.min(initial=0)
    return user_R * (request_R.max(initial=0) - least + 1) + request_R - least


def _digest(users: Sequence[str], user_R: Ints, item_R: Ints, labels_R: Ints) -> int:
    """Of users, items and labels, in any order; parts add up."""
    items_R = scattered(item_R.astype(np.uint64)) + labels_R.astype(np.uint64)
    return int(scattered(user_numbers(users)[user_R] + items_R).sum(dtype=np.uint64))


def _named(figures: Floats) -> dict[str, float | None]:
    return {name: None if np.isnan(x) else float(x) for name, x in zip(FIGURES, figures, strict=True)}

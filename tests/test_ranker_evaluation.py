"""The ranker's figures against one user at a time."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from ranker.evaluation import grouped_auc, report


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1))
def test_grouped_auc_equals_one_auc_a_user(rows: list[tuple[int, int, float]]) -> None:
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    own = {u: users == u for u in np.unique(users)}
    mixed = [mask for mask in own.values() if len(np.unique(labels[mask])) == 2]
    figures = grouped_auc(users, labels, scores)
    assert (figures["gauc_users"], figures["one_class_users"]) == (len(mixed), len(own) - len(mixed))
    assert figures["one_class_impressions"] == len(rows) - sum(mask.sum() for mask in mixed)
    if mixed:
        aucs = [roc_auc_score(labels[mask], scores[mask]) for mask in mixed]
        assert figures["gauc"] == pytest.approx(np.average(aucs, weights=[mask.sum() for mask in mixed]))
    else:
        assert figures["gauc"] is None


def test_the_report_slices_by_training_count() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0, 1, 10, 11, 100, 101, 5000] * 30)
    labels, scores = rng.integers(0, 2, len(counts)), rng.random(len(counts)).astype(np.float32)
    users = [f"u{i % 11}" for i in range(len(counts))]
    table = pa.table({"user_id": users, "label": labels, "score": scores, "train_count": counts})
    figures = report(table)
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert figures["log_loss"] == pytest.approx(log_loss(labels, scores.astype(float)))
    assert {name: part["impressions"] for name, part in figures["slices"].items()} == {
        "0": 30,
        "1-10": 60,
        "11-100": 60,
        "101+": 60,
    }
    warm = counts > 100
    assert figures["slices"]["101+"]["auc"] == pytest.approx(roc_auc_score(labels[warm], scores[warm]))
    empty = report(table.slice(0, 0))
    assert empty["auc"] is None
    assert empty["impressions"] == 0
    json.dumps([figures, empty], allow_nan=False)

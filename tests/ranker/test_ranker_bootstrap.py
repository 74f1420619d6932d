"""Users that are drawn again, and the intervals that come of it."""

import numpy as np
import pytest

from ranker.bootstrap import weightings
from ranker.tally import tally


def test_users_are_drawn_as_often_as_a_bootstrap_draws_them() -> None:
    times_UW = weightings([f"u{i}" for i in range(3000)], 100)
    assert (times_UW[:, 0] == 1).all()
    drawn_UB = times_UW[:, 1:]
    assert drawn_UB.mean() == pytest.approx(1, abs=0.01)
    assert drawn_UB.var() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(drawn_UB.T) - np.eye(100)).max() < 0.1
    np.testing.assert_array_equal(weightings(["u7"], 100)[0], times_UW[7])


def test_an_interval_of_few_impressions_is_of_what_an_auc_can_be() -> None:
    rng = np.random.default_rng(28)
    users, scores = rng.integers(0, 3, 30), 0.3 + 0.03 * rng.random(30)
    found = tally(users, users, (rng.random(30) < 0.4).astype(int), scores, weightings(["a", "b", "c"]))
    assert found.intervals(found.figures())["auc"] == [pytest.approx(0.804, abs=1e-3), 1]

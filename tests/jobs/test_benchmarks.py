"""What the benchmarks make of their trials' figures."""

import pytest
from scipy import stats

from benchmarks.trials import Trial, paired


def test_a_paired_difference_pairs_the_seeds() -> None:
    a, b = [0.5, 0.7, 0.6], [0.4, 0.65, 0.3]
    results = {Trial("d", v, s).key: {"auc": x} for v, xs in (("a", a), ("b", b)) for s, x in enumerate(xs)}
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, half = map(float, paired(results, "d", "a", "b", "auc", range(3)).split(" ± "))
    low, high = stats.t.interval(0.95, 2, sum(differences) / 3, stats.sem(differences))
    assert (mean, half) == pytest.approx(((low + high) / 2, (high - low) / 2), abs=1e-3)

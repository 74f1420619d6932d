"""The ranker's figures against one user at a time, and their intervals against replicates made the slow way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from slow_ids import split
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

from jobs.tables import show_comparison, show_evaluation
from pipeline.on_ray.training.scoring import WindowScorer, _missing
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.bootstrap import FIGURES, Sample, bootstrap
from ranker.config import RankerConfig
from ranker.evaluation import ImpressionError, calibration, compare, grouped_auc, report
from schemas.semantic_id import Layout

IMPRESSIONS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1
)


def impressions(rows: int = 210, users: int = 11, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    items = rng.permutation(np.arange(rows) % 42)
    return pa.table(
        {
            "user_id": [f"u{i % users}" for i in range(rows)],
            "item_id": [f"i{item}" for item in items],
            "label": rng.integers(0, 2, rows).astype(np.int8),
            "score": rng.integers(1, 50, rows).astype(np.float32) / 50,
            "train_count": np.array([0, 1, 10, 11, 100, 101, 5000])[items % 7],
            "history": np.resize([0, 3, 30, 300], rows),
            "missing": np.resize(["none", "none", "text"], rows),
        }
    )


def rescored(table: pa.Table, seed: int) -> pa.Table:
    scores = np.random.default_rng(seed).random(len(table)).astype(np.float32)
    return table.set_column(table.schema.get_field_index("score"), "score", pa.array(scores))


def columns_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users = np.unique(table["user_id"].to_numpy(), return_inverse=True)[1]
    return users, table["label"].to_numpy().astype(int), table["score"].to_numpy().astype(float)


def drawn(table: pa.Table, users: np.ndarray) -> pa.Table:
    """The impressions of the users, each draw of one as a user of its own."""
    owner = columns_of(table)[0]
    rows = [np.flatnonzero(owner == user) for user in users]
    names = np.repeat([f"d{i}" for i in range(len(users))], [len(own) for own in rows])
    return table.take(np.concatenate(rows)).set_column(0, "user_id", pa.array(names))


@settings(deadline=None)
@given(IMPRESSIONS)
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


@settings(deadline=None)
@given(IMPRESSIONS, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_figures_of_users_who_count_several_times(rows: list[tuple[int, int, float]], times: list[int]) -> None:
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    weights = np.array(times)[users]
    auc, _, loss = Sample(users, labels, scores).figures(np.array(times, float))
    if len(np.unique(labels[weights > 0])) == 2:
        assert auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    else:
        assert np.isnan(auc)
    if weights.any():
        assert loss == pytest.approx(log_loss(labels, scores, labels=[0, 1], sample_weight=weights))


def test_replicates_equal_those_of_users_drawn_one_by_one() -> None:
    table, replicates = impressions(), 20
    (fast,) = bootstrap([Sample(*columns_of(table))], 11, replicates, seed=5)
    rng = np.random.default_rng(5)
    for row in fast:
        slow = report(drawn(table, rng.integers(0, 11, 11)), replicates=1)
        np.testing.assert_allclose(row, [slow[name] for name in FIGURES])


def test_intervals_repeat_hold_the_figure_and_narrow_with_users() -> None:
    table = impressions(3000, users=30)
    found = report(table)
    mixed = report(table.take(np.random.default_rng(0).permutation(len(table))))
    many = report(impressions(30000, users=300))
    for name in FIGURES:
        low, high = found["intervals"][name]
        assert low < found[name] < high
        assert mixed["intervals"][name] == pytest.approx([low, high])
        narrow = np.diff(many["intervals"][name]) / (high - low)
        assert 0.2 < narrow < 0.5  # about 1 / √10
    one = report(impressions(50, users=1))
    assert one["auc"] is not None
    assert one["intervals"] == dict.fromkeys(FIGURES)


def test_the_report_slices_by_item_history_and_modality() -> None:
    table = impressions()
    figures = report(table)
    _, labels, scores = columns_of(table)
    counts = table["train_count"].to_numpy()
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert figures["log_loss"] == pytest.approx(log_loss(labels, scores))
    sizes = {by: {n: p["impressions"] for n, p in figures[by].items()} for by in ("slices", "by_history", "by_missing")}
    assert sizes == {
        "slices": {"0": 30, "1-10": 60, "11-100": 60, "101+": 60},
        "by_history": {"0": 53, "1-10": 53, "11-100": 52, "101+": 52},
        "by_missing": {"none": 140, "text": 70, "image": 0},
    }
    warm = counts > 100
    assert figures["slices"]["101+"]["auc"] == pytest.approx(roc_auc_score(labels[warm], scores[warm]))
    text = report(table.filter(pa.array(table["missing"].to_numpy(zero_copy_only=False) == "text")))
    assert figures["by_missing"]["text"]["gauc"] == text["gauc"]
    empty = report(table.slice(0, 0))
    assert empty["auc"] is None
    assert empty["impressions"] == 0
    json.dumps([figures, empty], allow_nan=False)


def test_calibration() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20000)
    fair = calibration((rng.random(20000) < scores).astype(int), scores)
    assert fair["error"] < 0.02
    assert fair["ratio"] == pytest.approx(1, abs=0.03)
    assert [part["impressions"] for part in fair["bins"]] == [2000] * 10
    biased = calibration((rng.random(20000) < scores / 2).astype(int), scores)
    assert biased["error"] == pytest.approx(0.25, abs=0.02)
    assert biased["ratio"] == pytest.approx(2, abs=0.1)
    constant = calibration(np.array([0, 1, 1, 1]), np.full(4, 0.5))
    assert constant["bins"] == [{"impressions": 4, "predicted": 0.5, "observed": 0.75}]
    assert constant["error"] == 0.25


def test_a_ranker_differs_from_itself_by_nothing() -> None:
    table = impressions()
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    found = compare(table, shuffled)
    for part in (found, *found["slices"].values()):
        assert part["differences"] == pytest.approx(dict.fromkeys(FIGURES, 0), abs=1e-12)
        for ends in part["intervals"].values():
            assert ends == pytest.approx([0, 0], abs=1e-12)
    assert set(compare(table, table)["differences"].values()) == {0.0}
    assert compare(table, table)["intervals"] == {name: [0.0, 0.0] for name in FIGURES}


def test_differences_are_of_the_same_users_in_each_replicate() -> None:
    ours, theirs = impressions(), rescored(impressions(), seed=3)
    found, swapped = compare(ours, theirs), compare(theirs, ours)
    apart = [report(table) for table in (ours, theirs)]
    order = [(name, "ascending") for name in ("user_id", "item_id", "label")]
    ours, theirs = (table.sort_by(order) for table in (ours, theirs))
    rng, differences = np.random.default_rng(0), []
    for _ in range(1000):
        users = rng.integers(0, 11, 11)
        a, b = (roc_auc_score(*columns_of(drawn(table, users))[1:]) for table in (ours, theirs))
        differences.append(a - b)
    assert found["intervals"]["auc"] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist())
    for name in FIGURES:
        assert found["differences"][name] == pytest.approx(apart[0][name] - apart[1][name])
        assert swapped["intervals"][name] == pytest.approx([-end for end in reversed(found["intervals"][name])])
    cold = [one["slices"]["1-10"]["gauc"] for one in apart]
    assert found["slices"]["1-10"]["differences"]["gauc"] == pytest.approx(cold[0] - cold[1])
    json.dumps([found, compare(ours.slice(0, 0), theirs.slice(0, 0))], allow_nan=False)


def test_other_impressions_are_not_compared() -> None:
    table = impressions()
    with pytest.raises(ImpressionError, match="not the same: 210 and 209"):
        compare(table, table.slice(1))
    flipped = table.set_column(2, "label", pa.array(1 - table["label"].to_numpy()))
    with pytest.raises(ImpressionError, match=r"'user_id': 'u0'.* of one, .* of the other"):
        compare(table, flipped)


def test_the_scorer_says_what_an_impression_was_seen_after_and_lacks(tmp_path: Path) -> None:
    config = RankerConfig(dim=16, layers=1, heads=2, max_items=40, batch_items=100)
    torch.manual_seed(0)
    TrainedRanker(config, LAYOUT, TOKENIZER, build(config, LAYOUT).state_dict()).save(tmp_path, {})
    threads = torch.get_num_threads()
    windows = taste_windows(30, seed=4)
    scored = WindowScorer(lambda: tmp_path, TOKENIZER)(windows)
    torch.set_num_threads(threads)
    expected: list[tuple[Any, ...]] = []
    for row in windows.to_pylist():
        codes = np.array(row["tokens"]).reshape(-1, LAYOUT.slots)
        for position, (item, counted) in enumerate(zip(row["item_ids"], row["loss_mask"], strict=True)):
            lacks = "image" if split(codes[position].tolist(), LAYOUT).image is None else "none"
            if counted:
                expected.append((row["user_id"], position, item, lacks))
    found = zip(*(scored[name].to_pylist() for name in ("user_id", "history", "item_id", "missing")), strict=True)
    assert sorted(found) == sorted(expected)
    assert scored.schema.field("history").type == pa.int32()


@pytest.mark.parametrize(
    ("layout", "tokens", "expected"),
    [
        (Layout(1, 1, 1, 4), [[0, 1, 2], [0, 4, 2], [0, 1, 4]], ["none", "text", "image"]),
        (Layout(1, 0, 2, 4), [[0, 1, 2], [0, 4, 4]], ["none", "image"]),
        (Layout(2, 0, 0, 4), [[0, 1]], ["none"]),
    ],
)
def test_a_modality_without_levels_is_never_missing(
    layout: Layout, tokens: list[list[int]], expected: list[str]
) -> None:
    assert _missing(torch.tensor(tokens), layout).to_pylist() == expected


def test_the_tables_show_gaps_as_dashes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    who = {"ranker": "0123456789abcdef", "arch": "hmat", "tokenizer": TOKENIZER}
    table = impressions()
    found, difference = report(table), compare(table, rescored(table, seed=3))
    show_evaluation(who | found)
    show_comparison(difference)
    shown = capsys.readouterr().out
    low, high = found["intervals"]["gauc"]
    assert f"{found['gauc']:.4f}" in shown
    assert f"{low:.4f} to {high:.4f}" in shown
    assert f"{difference['differences']['auc']:.4f}" in shown
    assert "missing: image" in shown
    empty = table.slice(0, 0)
    show_evaluation(who | report(empty))
    show_comparison(compare(empty, empty))
    assert "–" in capsys.readouterr().out

"""The ranker's figures against one user at a time, and their intervals against replicates made the slow way."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from test_ranker_data import TOKENIZER, taste_windows

from jobs.tables import show_comparison, show_evaluation
from ranker.baselines.like_rate import LikeRate
from ranker.bootstrap import weightings
from ranker.evaluation import ImpressionError, compare, grouped_auc, measure, report, streamed, tallies
from ranker.tally import FIGURES, Tally, calibration, tally
from ranker.windows import earlier, flat

IMPRESSIONS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1
)


def impressions(rows: int = 210, users: int = 11, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    items = rng.permutation(np.arange(rows) % 42)
    return pa.table(
        {
            "user_id": [f"u{i % users}" for i in range(rows)],
            "item_hash": items,
            "request": np.arange(rows) // users // 6,
            "label": rng.integers(0, 2, rows).astype(np.int8),
            "score": rng.integers(1, 50, rows).astype(np.float32) / 50,
            "streamed": rng.random(rows).astype(np.float32),
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


def drawn(table: pa.Table, times: np.ndarray) -> pa.Table:
    """The impressions of users who count several times, each time as a user of its own."""
    owner = columns_of(table)[0]
    users = np.repeat(np.arange(len(times)), times)
    rows = [np.flatnonzero(owner == user) for user in users]
    names = np.repeat([f"d{i}" for i in range(len(users))], [len(own) for own in rows])
    return table.take(np.concatenate(rows)).set_column(0, "user_id", pa.array(names))


def tally_of(users: np.ndarray, labels: np.ndarray, scores: np.ndarray, times: np.ndarray | None = None) -> Tally:
    once = np.ones(int(users.max(initial=-1)) + 1 if times is None else len(times))
    return tally(users, users, labels, scores, np.stack([once, once if times is None else times], 1).astype(float))


@settings(deadline=None)
@given(IMPRESSIONS)
def test_grouped_auc_equals_one_auc_a_user(rows: list[tuple[int, int, float]]) -> None:
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    own = {u: users == u for u in np.unique(users)}
    mixed = [mask for mask in own.values() if len(np.unique(labels[mask])) == 2]
    figures = grouped_auc(users, labels, scores)
    assert (figures["gauc_groups"], figures["one_class_groups"]) == (len(mixed), len(own) - len(mixed))
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
    (_, auc), _, (_, loss) = tally_of(users, labels, scores, np.array(times)).figures()
    if len(np.unique(labels[weights > 0])) == 2:
        assert auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    else:
        assert np.isnan(auc)
    if weights.any():
        assert loss == pytest.approx(log_loss(labels, scores, labels=[0, 1], sample_weight=weights))


def test_replicates_equal_those_of_users_drawn_one_by_one() -> None:
    table = impressions()
    fast = tallies(table, replicates=20).by_name["score"].figures()
    times_UW = weightings(sorted(set(table["user_id"].to_pylist())), 20).astype(int)
    for replicate in range(21):
        slow = report(drawn(table, times_UW[:, replicate]), replicates=1)
        np.testing.assert_allclose(fast[1:, replicate], [slow[name] for name in FIGURES[1:]])
        assert fast[0, replicate] == pytest.approx(slow["auc"], abs=5e-3 if replicate else 0)  # by coarser steps


def test_parts_of_the_users_add_up_to_all() -> None:
    table = impressions()
    owner = columns_of(table)[0]
    parts = [tallies(table.filter(pa.array(owner % 3 == part))) for part in range(3)]
    whole, summed = tallies(table), parts[2] + parts[0] + parts[1]
    assert whole.digest == summed.digest
    for name, of_all in whole.by_name.items():
        np.testing.assert_allclose(summed.by_name[name].figures(), of_all.figures())
        np.testing.assert_array_equal(summed.by_name[name].counts, of_all.counts)


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_rounded_scores_leave_auc_as_it_is(rate: float) -> None:
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-rng.normal(np.log(rate / (1 - rate)), 0.7, 50_000)))
    labels = (rng.random(50_000) < scores).astype(int)
    exact = roc_auc_score(labels, scores)
    assert tally_of(np.arange(50_000) % 7, labels, scores).figures()[0, 0] == pytest.approx(exact, abs=1e-5)


def test_gauc_is_of_requests_and_streamed_gauc_of_users() -> None:
    table = impressions(600)
    found = report(table)
    users, labels, _ = columns_of(table)
    requests = users * 1000 + table["request"].to_numpy()
    for column, groups, figures in (("score", requests, found), ("streamed", users, found["streamed"])):
        expected = grouped_auc(groups, labels, table[column].to_numpy().astype(float))
        assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert found["gauc_groups"] > found["streamed"]["gauc_groups"] == 11


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

    def of(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        return calibration(tally_of(np.zeros(len(labels), int), labels, scores))

    fair = of((rng.random(20000) < scores).astype(int), scores)
    assert fair["error"] < 0.02
    assert fair["ratio"] == pytest.approx(1, abs=0.03)
    assert [part["impressions"] for part in fair["bins"]] == pytest.approx([2000] * 10, abs=300)
    biased = of((rng.random(20000) < scores / 2).astype(int), scores)
    assert biased["error"] == pytest.approx(0.25, abs=0.02)
    assert biased["ratio"] == pytest.approx(2, abs=0.1)
    constant = of(np.array([0, 1, 1, 1]), np.full(4, 0.5))
    assert constant["bins"] == [{"impressions": 4, "predicted": 0.5, "observed": 0.75}]
    assert constant["error"] == 0.25


def test_a_ranker_differs_from_itself_by_nothing() -> None:
    table = impressions()
    found = compare(tallies(table), tallies(table.take(np.random.default_rng(1).permutation(len(table)))))
    for part in (found, found["streamed"], *found["slices"].values()):
        assert part["differences"] == pytest.approx(dict.fromkeys(FIGURES, 0), abs=1e-12)
        for ends in part["intervals"].values():
            assert ends == pytest.approx([0, 0], abs=1e-12)


def test_differences_are_of_the_same_users_in_each_replicate() -> None:
    ours, theirs = impressions(), rescored(impressions(), seed=3)
    found, swapped = (compare(tallies(a), tallies(b)) for a, b in ((ours, theirs), (theirs, ours)))
    apart = [report(table) for table in (ours, theirs)]
    times_UW = weightings(sorted(set(ours["user_id"].to_pylist()))).astype(int)
    differences = []
    for times_U in times_UW.T[1:]:
        a, b = (roc_auc_score(*columns_of(drawn(table, times_U))[1:]) for table in (ours, theirs))
        differences.append(a - b)
    assert found["intervals"]["auc"] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist(), abs=5e-3)
    for name in FIGURES:
        assert found["differences"][name] == pytest.approx(apart[0][name] - apart[1][name])
        assert swapped["intervals"][name] == pytest.approx([-end for end in reversed(found["intervals"][name])])
    cold = [one["slices"]["1-10"]["gauc"] for one in apart]
    assert found["slices"]["1-10"]["differences"]["gauc"] == pytest.approx(cold[0] - cold[1])
    empty = tallies(ours.slice(0, 0))
    json.dumps([found, compare(empty, empty)], allow_nan=False)


def test_other_impressions_are_not_compared() -> None:
    table = impressions()
    with pytest.raises(ImpressionError, match="not the same: 210 and 209"):
        compare(tallies(table), tallies(table.slice(1)))
    flipped = table.set_column(table.column_names.index("label"), "label", pa.array(1 - table["label"].to_numpy()))
    with pytest.raises(ImpressionError, match="the 210 impressions are not of the same users, items and labels"):
        compare(tallies(table), tallies(flipped))


def coin_flips(users: int) -> pa.Table:
    """Windows of users who like so many of a hundred whatever the item; requests are of five."""
    windows, rng = taste_windows(users, seed=0), np.random.default_rng(0)
    lengths = pa.compute.list_value_length(windows["labels"]).to_numpy()
    rate = np.repeat(rng.random(users), lengths)
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    for name, values in (("labels", rng.random(len(rate)) < rate), ("train_count", rng.integers(0, 5, len(rate)))):
        lists = pa.ListArray.from_arrays(offsets, pa.array(values)).cast(windows.schema.field(name).type)
        windows = windows.set_column(windows.column_names.index(name), name, lists)
    clicks = pa.ListArray.from_arrays(offsets, pa.array(flat(windows["train_count"]) // 2, pa.int32()))
    return windows.set_column(windows.column_names.index("train_clicks"), "train_clicks", clicks)


def test_only_frozen_gauc_says_that_nothing_is_known_where_nothing_is() -> None:
    """Labels are coin flips given the user, and the rule follows the user's own rate: the truth is .5."""
    windows = coin_flips(2000)
    rule, counted = LikeRate(0.5, levels=True), flat(windows["loss_mask"]).astype(bool)
    known, before = flat(windows["known"]).astype(np.int64), earlier(windows)
    user = np.repeat(np.arange(len(windows)), pa.compute.list_value_length(windows["labels"]).to_numpy())
    labels, request = flat(windows["labels"]), user * 1000 + flat(windows["requests"])
    frozen, running = (rule(windows, seen)[counted] for seen in (known, before))
    assert grouped_auc(request[counted], labels[counted], frozen)["gauc"] == pytest.approx(0.5, abs=0.015)
    assert grouped_auc(user[counted], labels[counted], running)["gauc"] < 0.35


def test_references_stand_beside_the_ranker() -> None:
    table = impressions()
    rates = rescored(table, seed=3)["score"]
    table = table.append_column("rate", rates).append_column(streamed("rate"), rescored(table, seed=4)["score"])
    found = report(table, ["rate"])
    alone = report(rescored(impressions(), seed=3))
    less = found["references"]["rate"]["ranker_less"]["differences"]
    for name in FIGURES:
        assert found["references"]["rate"][name] == pytest.approx(alone[name])
        assert less[name] == pytest.approx(found[name] - alone[name])
    json.dumps(found, allow_nan=False)


def test_the_tables_show_gaps_as_dashes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    who = {"ranker": "0123456789abcdef", "arch": "hmat", "tokenizer": TOKENIZER}
    table = impressions()
    table = table.append_column("rate", table["score"]).append_column(streamed("rate"), table["streamed"])
    found, difference = report(table, ["rate"]), compare(tallies(table), tallies(rescored(table, seed=3)))
    show_evaluation(who | found)
    show_comparison(difference)
    shown = capsys.readouterr().out
    low, high = found["intervals"]["gauc"]
    assert f"{found['gauc']:.4f}" in shown
    assert f"{low:.4f} to {high:.4f}" in shown
    assert f"{difference['differences']['auc']:.4f}" in shown
    assert "missing: image" in shown
    assert "the ranker less rate" in shown
    empty = tallies(table.slice(0, 0))
    show_evaluation(who | measure(empty))
    show_comparison(compare(empty, empty))
    assert "–" in capsys.readouterr().out

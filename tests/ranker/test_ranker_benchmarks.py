"""The ranker's benchmarks on a handmade log: how it is split, the item's rate with and without text, and what boosted
trees are told of an event."""

import csv
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import wines
from benchmarks.boosted_trees import FEW, PRIOR_EVENTS, TREES, Describer, boosted_trees
from benchmarks.item_rates import like_rates, rates_with_text, told_by_text
from benchmarks.rating_log import batch_of, cut_windows, figures, items_of, load_log
from benchmarks.taste import _by_item
from ranker.windows import FOLDS

USERS, ITEMS, EVENTS, WIDTH = 40, 60, 900, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items are liked by the first number of their vectors, and users by the second; many events share a second."""
    folder, rng = tmp_path_factory.mktemp("ratings"), np.random.default_rng(0)
    vectors_NV = vectors().numpy()
    pairs = rng.permutation(USERS * ITEMS)[:EVENTS]
    user_P, item_P = pairs // ITEMS, pairs % ITEMS
    stars_P = 3.5 + vectors_NV[item_P, 0] + (user_P % 2 - 0.5) * vectors_NV[item_P, 1] + rng.normal(0, 0.7, EVENTS)
    stars_P = (2 * stars_P).round().clip(2, 10) / 2
    rows = zip(user_P, item_P + 100, stars_P, rng.integers(0, 300, EVENTS), strict=True)
    (folder / "ratings.dat").write_text("\n".join("::".join(map(str, row)) for row in rows))
    with (folder / "items.csv").open("w") as file:
        csv.writer(file).writerows(
            [["wineId", "title", "genres", "text"], *([n + 100, "", "", ""] for n in range(ITEMS))]
        )
    return folder


def vectors() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0, 1, (ITEMS, WIDTH)))


def test_last_tenth_is_the_test_and_four_stars_are_liked(folder: Path) -> None:
    log = load_log(folder)
    assert items_of(folder) == "wines"
    assert log.test_P.sum() == pytest.approx(EVENTS / 10, rel=0.1)
    assert (log.train_P == ~log.test_P).all()
    assert (log.liked_P == (log.rating_P >= 4)).all()
    assert log.counted_R.all()


def test_rella_trains_on_four_fifths_of_events_with_five_before_them(folder: Path) -> None:
    log = load_log(folder, rella=True)
    past_P = np.arange(EVENTS) - log.start_P
    assert (log.counted_P == (past_P >= 5)).all()
    between_P = ~log.train_P & ~log.test_P
    for share, some_P in ((0.8, log.train_P), (0.1, between_P), (0.1, log.test_P)):
        assert (some_P & log.counted_P).sum() == pytest.approx(share * log.counted_P.sum(), abs=0.02 * EVENTS)
    validation = load_log(folder, validation=True, rella=True)
    assert (len(validation.user_P), validation.train_P.sum()) == (EVENTS - log.test_P.sum(), log.train_P.sum())
    assert validation.test_P.sum() == between_P.sum()
    for test, wanted_P in ((False, log.train_P), (True, log.test_P)):
        windows_Q3 = cut_windows(log, 1000, test=test)
        place_BN, batch = batch_of(log, windows_Q3, test=test)
        assert (np.sort(place_BN[batch.loss_mask.numpy()]) == np.flatnonzero(wanted_P)).all()


def test_uncounted_events_do_not_matter(folder: Path) -> None:
    log = load_log(folder)
    log = replace(log, counted_P=np.arange(EVENTS) % 2 == 0)
    score_R = torch.rand(int(log.test_P.sum()), generator=torch.Generator().manual_seed(0))
    other_R = torch.where(torch.from_numpy(log.counted_R), score_R, 1 - score_R)
    assert figures(log, score_R, score_R) == pytest.approx(figures(log, other_R, other_R), nan_ok=True)


def test_rate_of_an_unknown_item_is_what_the_text_tells(folder: Path) -> None:
    log = load_log(folder, hidden_class=0)
    rate_N, told_N = rates_with_text(log, vectors(), 1.0, 5.0), told_by_text(log, vectors(), 1.0, 5.0, folds=1)
    unknown_N = log.count_N == 0
    assert unknown_N.sum() > 3
    assert rate_N[unknown_N] == pytest.approx(told_N[unknown_N].clip(0.005, 0.995))
    assert len(set(rate_N[unknown_N])) == unknown_N.sum()
    assert len(set(like_rates(log)[unknown_N])) == 1
    with_text, without = (figures(log, *_by_item(log, found_N))["auc new"] for found_N in (rate_N, like_rates(log)))
    assert with_text > without + 0.1


def test_what_the_text_tells_of_an_item_knows_nothing_of_its_own_events(folder: Path) -> None:
    log = load_log(folder)
    item = int(log.item_P[np.flatnonzero(log.train_P)[0]])
    other = replace(log, rating_P=np.where((log.item_P == item) & log.train_P, 8 - log.rating_P, log.rating_P))
    mean, other_mean = (x.liked_P[x.train_P].mean() for x in (log, other))
    a, b = (told_by_text(x, vectors(), 1.0, 5.0)[item] for x in (log, other))
    assert a == pytest.approx(b, abs=3 * abs(mean - other_mean) + 1e-12)
    assert told_by_text(log, vectors(), 1.0, 5.0, folds=1)[item] != pytest.approx(a, abs=1e-6)


def test_rows_are_what_a_slow_loop_finds(folder: Path) -> None:
    log = load_log(folder)
    of = Describer(log, vectors())
    for place in np.r_[np.flatnonzero(log.train_P)[::97], np.flatnonzero(log.test_P)[::13]]:
        row = of.rows(np.array([place]), log.earlier_P[[place]])[0]
        user, item, start, seen = (int(x[place]) for x in (log.user_P, log.item_P, log.start_P, log.earlier_P))
        others_P = log.train_P & (log.item_P == item)
        if log.train_P[place]:
            others_P &= log.user_P % FOLDS != user % FOLDS
        likes, count = log.liked_P[others_P].sum(), others_P.sum()
        assert row[0] == pytest.approx((likes + PRIOR_EVENTS * of.told_N[item]) / (count + PRIOR_EVENTS), abs=1e-5)
        past = np.arange(start, start + seen)
        assert row[4 + min(WIDTH, 16)] == pytest.approx(np.log1p(seen), abs=1e-5)
        mean = log.liked_P[log.train_P].mean()
        assert row[5 + min(WIDTH, 16)] == pytest.approx((log.liked_P[past] - mean).sum() / (seen + FEW), abs=1e-5)
        like_K = of.direction_NC[log.item_P[past]] @ of.direction_NC[item]
        liked_K = log.liked_P[past] == 1
        assert row[-6] == pytest.approx(like_K[liked_K].sum() / (liked_K.sum() + FEW), abs=1e-4)
        assert row[-3] == pytest.approx(max([-1.0, *like_K[-30:][liked_K[-30:]]]), abs=1e-4)


@given(place=st.integers(0, EVENTS - 1))
@settings(max_examples=25, deadline=None)
def test_no_row_holds_what_it_is_to_foretell(folder: Path, place: int) -> None:
    """Neither the event's own rating nor any that comes no earlier of the user's moves its row, but for the constants
    that are fitted on all events of training; frozen rows of a block know what was before it alone."""
    log = load_log(folder)
    later_P = np.arange(EVENTS) >= log.start_P + log.known_P[place]
    later_P &= log.user_P == log.user_P[place]
    other = replace(log, rating_P=np.where(later_P, 8 - log.rating_P, log.rating_P))
    rows = []
    for x in (log, other):
        of = Describer(x, vectors())
        of.told_N, of.mean, of.mean_rating = np.zeros(ITEMS), 0.5, 3.0
        of.beyond_P = x.liked_P - of._rate(x.item_P, of.fold_P)
        of.likes_GN, of.ratings_GN = of._sums(x.liked_P), of._sums(x.rating_P)
        rows.append(of.rows(np.array([place]), log.known_P[[place]])[0])
    if log.test_P[place]:  # rates of all users: the user's own events of the training period are in them, this is not
        later_P &= log.train_P
        assert not later_P.any()
    assert rows[0] == pytest.approx(rows[1], abs=1e-5)


def test_trees_find_what_rates_and_texts_tell(folder: Path) -> None:
    log = load_log(folder)
    settings_ = TREES | {"rounds": 60, "min_data_in_leaf": 20}
    scores = boosted_trees(log, vectors(), settings_, 0)
    again = boosted_trees(log, vectors(), settings_, 0)
    assert all(torch.equal(a, b) for a, b in zip(scores, again, strict=True))
    assert figures(log, *scores)["auc"] > 0.75


def test_wines_become_a_folder(tmp_path: Path) -> None:
    head = "WineID,WineName,Type,Elaborate,Grapes,Harmonize,ABV,Body,Acidity,Code,Country,RegionName,WineryName"
    grapes, dishes = """ "['Chardonnay', 'Pinot Noir']" """.strip(), """ "['Fish']" """.strip()
    wine = f"7,Brut,Sparkling,Varietal/100%,{grapes},{dishes},12.5,Light,High,FR,France,Reims,Maison"
    with ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(wines.WINES, f"{head}\n1{wine}\n{wine}\n")
        archive.writestr(
            wines.RATINGS, "RatingID,UserID,WineID,Vintage,Rating,Date\n1,5,7,1999,4.5,2020-01-01 00:00:10\n"
        )
    wines.main(tmp_path / "x.zip", tmp_path / "made")
    assert (tmp_path / "made" / "ratings.dat").read_text() == "5::7::4.5::1577836810\n"
    rows = list(csv.DictReader((tmp_path / "made" / "items.csv").open()))
    assert [row["wineId"] for row in rows] == ["7", "17"]
    assert rows[0]["title"] == "Brut, Maison"
    assert rows[0]["genres"] == "Sparkling|France|Reims|Chardonnay|Pinot Noir"

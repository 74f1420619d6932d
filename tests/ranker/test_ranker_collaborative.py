"""Item factors and the memory of taste, against plain ridge regressions; the HMAT with them and without its passes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

from ranker.architectures import build
from ranker.artefact import TrainedRanker, load
from ranker.baselines.factorisation import fit_factorisation
from ranker.config import CollaborativeConfig, RankerConfig
from ranker.factors import Events, ItemFactors, fit_factors, history_features, met_vectors
from ranker.hmat.collaborative import FEW_RECENT, STRETCH, CollaborativeMemory, expected, fading_mean
from ranker.training_events import factors_of, training_events
from ranker.windows import FOLDS, collate, earlier
from schemas.semantic_id import Layout

SMALL = CollaborativeConfig(factors=3, content_components=2, met_components=2, graded=0.5)


def planted(users: int = 300, items: int = 120, each: int = 40) -> tuple[Events, np.ndarray, np.ndarray, np.ndarray]:
    """Events, hashes, content of the items, and the truth (U, I): taste by two factors that follow the content."""
    rng = np.random.default_rng(0)
    content_IV = rng.normal(size=(items, 4))
    truth_UI = 0.5 + 0.1 * content_IV[:, 0] + 0.2 * rng.normal(size=(users, 2)) @ content_IV[:, 1:3].T
    user_P = np.repeat(np.arange(users), each)
    item_P = np.concatenate([rng.permutation(items - 20)[:each] for _ in range(users)])
    feedback_P = truth_UI[user_P, item_P] + rng.normal(size=len(user_P)) * 0.1
    return Events(user_P, item_P, feedback_P, np.arange(users) % FOLDS), np.arange(items) * 7 + 3, content_IV, truth_UI


@pytest.mark.parametrize("half_life", [None, 100.0])
def test_states_are_the_ridge_regressions_over_what_came_before(half_life: float | None) -> None:
    events, hash_I, content_IV, _ = planted()
    config = SMALL.model_copy(update={"half_life": half_life})
    memory = CollaborativeMemory(fit_factors(events, hash_I[:100], content_IV[:100], config), config, 8)
    memory.usual_HG.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    places_BN = torch.randint(0, 120, (2, 128))  # two stretches, items that training never met among them
    items_BN = torch.from_numpy(hash_I)[places_BN]
    rows_BNF, count_BN = memory.rows(items_BN, torch.from_numpy(content_IV)[places_BN].float())
    assert ((count_BN > 0) == (places_BN < 100)).all()
    feedback_BN = torch.rand(2, 128)
    states_BMG = memory.states(rows_BNF, feedback_BN, items_BN)
    x_BNG, above_BN = rows_BNF[..., 1:].double(), (feedback_BN - rows_BNF[..., 0]).double()
    precision_G = memory.precision_F[1:].double()
    met_BNZ = memory.met_IZ[places_BN.clamp(max=100)].double()
    for after in (0, 1, 63, 64, 65, 127, 128):
        old_N = after // STRETCH - torch.arange(after) // STRETCH  # stretches that have ended since
        weighed = x_BNG[:, :after].transpose(1, 2) * memory.fade**old_N
        history_B1H = history_features(met_BNZ[:, :after].sum(1, keepdim=True), torch.tensor([[after]]))
        usual_BG1 = (history_B1H @ memory.usual_HG.double()).transpose(1, 2)
        right = weighed @ above_BN[:, :after, None] + precision_G[:, None] * usual_BG1
        wanted = torch.linalg.solve(torch.diag(precision_G) + weighed @ x_BNG[:, :after], right)[..., 0]
        torch.testing.assert_close(states_BMG[:, after].double(), wanted, atol=1e-5, rtol=1e-4)


def test_the_latest_surprises_fade_within_a_few_items() -> None:
    torch.manual_seed(0)
    x_BN = torch.randn(2, 130, dtype=torch.float64)  # three stretches
    found_BM = fading_mean(x_BN, 4.0)
    for after in (0, 1, 63, 64, 65, 129, 130):
        weight_N = 0.5 ** (torch.arange(after, 0, -1, dtype=torch.float64).sub(1) / 4)
        wanted_B = (x_BN[:, :after] * weight_N).sum(1) / (weight_N.sum() + FEW_RECENT)
        torch.testing.assert_close(found_BM[:, after], wanted_B)


def test_factors_find_taste_and_speak_of_items_nobody_knows() -> None:
    events, hash_I, content_IV, truth_UI = planted()
    memory = CollaborativeMemory(fit_factors(events, hash_I[:100], content_IV[:100], SMALL), SMALL, 8)
    items_BN = torch.from_numpy(hash_I).expand(len(truth_UI), -1)
    rows_BNF, _ = memory.rows(items_BN, torch.from_numpy(content_IV).float().expand(len(truth_UI), -1, -1))
    seen_BN = torch.from_numpy(truth_UI).float()[:, :60]
    state_BG = memory.states(rows_BNF[:, :60], seen_BN, items_BN[:, :60])[:, -1:]
    found_BN = expected(rows_BNF, state_BG.expand(-1, rows_BNF.shape[1], -1)).numpy()
    for some in (slice(60, 100), slice(100, 120)):  # known to others, known to nobody
        assert np.corrcoef(found_BN[:, some].ravel(), truth_UI[:, some].ravel())[0, 1] > 0.9


def test_graded_feedback_is_mixed_with_the_label() -> None:
    events, hash_I, content_IV, _ = planted()
    ends = Events(events.user_P, events.item_P, events.feedback_P, events.fold_U, (1.0, 5.0))
    memory = CollaborativeMemory(fit_factors(ends, hash_I, content_IV, SMALL), SMALL, 8)
    mixed_BN = memory.feedback(torch.tensor([[1, 0, 1]]), torch.tensor([[4.0, 0.5, torch.nan]]))
    torch.testing.assert_close(mixed_BN, torch.tensor([[0.875, 0.0, 1.0]]))
    windows = taste_windows(20, seed=0)
    found = training_events([windows])
    counted = windows["loss_mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    assert len(found.user_P) == counted.sum()
    assert (found.mixed(0.5).feedback_P == found.label_P).all()  # there is no graded feedback


def with_factors(windows: pa.Table, **settings: object) -> tuple[RankerConfig, torch.Tensor, ItemFactors]:
    config = RankerConfig(
        dim=16, layers=2, heads=2, max_items=40, decoded=("text",), codes=False, collaborative=SMALL, **settings
    )
    torch.manual_seed(0)
    decoded_CV = torch.randn(LAYOUT.slots * (LAYOUT.codebook_size + 1), 4)
    return config, decoded_CV, factors_of(training_events([windows]), SMALL, decoded_CV)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16), st.booleans())
def test_remembering_and_scoring_is_the_full_pass(seed: int, ties: bool) -> None:
    windows = taste_windows(5, seed)
    config, decoded_CV, factors = with_factors(windows)
    model = build(config, LAYOUT, decoded_CV, factors).eval()
    batch = collate(windows, LAYOUT)
    items = batch.items.shape[1]
    place_N = torch.arange(items)
    seen_BN = (place_N // 3 * 3 if ties else place_N).expand(len(batch.items), -1)
    with torch.inference_mode():
        model.collaborative.slope.fill_(2)  # type: ignore[union-attr, operator]
        full_BN = model(batch.tokens, batch.items, batch.labels, None, seen_BN)
        memory = model.remember(batch.tokens, batch.items, batch.labels, None, seen_BN)  # type: ignore[operator]
        torch.testing.assert_close(model.score(memory, batch.tokens, batch.items, seen_BN), full_BN)  # type: ignore[operator]
        short = [x[:, :9] for x in (batch.tokens, batch.items, batch.labels)]
        ninth = model.score(model.remember(*short), batch.tokens[:, 9:10], batch.items[:, 9:10])  # type: ignore[operator]
        if not ties:
            torch.testing.assert_close(ninth[:, 0], full_BN[:, 9])
        other = batch.labels.clone()
        other[:, 9:] = 1 - other[:, 9:]
        again = model(batch.tokens, batch.items, other, None, seen_BN)
        torch.testing.assert_close(again[:, :10], full_BN[:, :10])  # an item's own feedback is not in its logit


def test_training_takes_some_items_for_new_ones() -> None:
    windows = taste_windows(200, seed=0)
    factors = with_factors(windows)[2]
    memory = CollaborativeMemory(factors, SMALL.model_copy(update={"unknown": 0.25}), 16)
    batch = collate(windows, LAYOUT)
    assert (memory.rows(batch.items, None)[1][batch.loss_mask] > 0).all()
    asked_BNF, count_BN = memory.asked(batch.items, None, None)
    new_BN = count_BN == 0
    assert abs(new_BN[batch.loss_mask].float().mean() - 0.25) < 0.02
    assert torch.equal(asked_BNF[new_BN], factors.intercept_F.expand_as(asked_BNF[new_BN]))
    torch.testing.assert_close(memory.eval().asked(batch.items, None), memory.rows(batch.items, None))


def test_the_artefact_keeps_the_factors(tmp_path: Path) -> None:
    windows = taste_windows(10, seed=0)
    config, decoded_CV, factors = with_factors(windows)
    model = build(config, LAYOUT, decoded_CV, factors).eval()
    TrainedRanker(config, LAYOUT, TOKENIZER, model.state_dict()).save(tmp_path, {})
    batch = collate(windows, LAYOUT)
    torch.testing.assert_close(load(tmp_path).model()(*batch.inputs), model(*batch.inputs))
    with pytest.raises(ValueError, match="go together"):
        build(config, LAYOUT, decoded_CV)


def test_factorisation_ranks_by_what_others_said() -> None:
    rng = np.random.default_rng(0)
    windows = taste_windows(400, seed=1)
    rule = fit_factorisation(lambda: (windows.slice(first, 150) for first in range(0, 400, 150)))
    seen_P = earlier(windows)
    scores_P = rule(windows, seen_P)
    labels_P = windows["labels"].combine_chunks().flatten().to_numpy()
    assert roc_auc_score(labels_P, scores_P) > 0.7
    later = windows.set_column(
        windows.schema.get_field_index("labels"),
        "labels",
        pa.array([[*labels[:3], *rng.integers(0, 2, len(labels) - 3)] for labels in windows["labels"].to_pylist()]),
    )
    assert np.allclose(rule(later, seen_P)[seen_P <= 3], scores_P[seen_P <= 3])


def test_the_layout_of_one_code_an_item_gives_its_own_vector() -> None:
    layout = Layout(1, 0, 0, 50)
    config = RankerConfig(dim=16, codes=False, decoded=("text",))
    vectors_CV = torch.randn(51, 7)
    model = build(config, layout, vectors_CV)
    tokens_BNT = torch.randint(0, 50, (2, 5, 1))
    torch.testing.assert_close(model.items.content(tokens_BNT), vectors_CV[tokens_BNT[..., 0]])  # type: ignore[union-attr, operator]


def test_rows_of_a_fold_know_nothing_of_its_users() -> None:
    events, hash_I, content_IV, _ = planted()
    own_I = events.item_P % 3 == 0  # known to the users of one fold alone
    kept_P = ~own_I | (events.fold_U[events.user_P] == 5)
    some = Events(events.user_P[kept_P], events.item_P[kept_P], events.feedback_P[kept_P], events.fold_U)
    factors = fit_factors(some, hash_I, content_IV, SMALL)
    assert factors.apart_GIF is not None
    only = torch.arange(120) % 3 == 0
    assert factors.apart_GIF[5, :-1][only].abs().max() < 1e-5  # what content says, and no more
    torch.testing.assert_close(factors.apart_GIF[4, :-1][only], factors.deviation_IF[:-1][only])
    assert not torch.allclose(factors.apart_GIF[4, :-1][~only], factors.deviation_IF[:-1][~only])


def test_users_who_all_met_the_same_items_leave_no_hole() -> None:
    """Of whom met what there is one singular vector then; further components say nothing."""
    user_P, item_P = (places.ravel() for places in np.indices((40, 9)))
    met_IZ = met_vectors(user_P, item_P, (40, 9), components=3)
    assert met_IZ.shape == (10, 3)
    np.testing.assert_allclose(np.sort(np.abs(met_IZ[:-1])), [[0, 0, 1]] * 9, atol=1e-9)
    feedback_P = np.random.default_rng(0).random(len(user_P))
    factors = fit_factors(Events(user_P, item_P, feedback_P, np.arange(40) % FOLDS), np.arange(9), None, SMALL)
    assert all(torch.isfinite(tensor).all() for tensor in factors.kept().values())


def test_factors_do_not_depend_on_the_order_of_windows_and_blocks() -> None:
    windows = pa.concat_tables(taste_windows(60, seed) for seed in (1, 2, 3))  # three windows a user
    some = windows.take(np.random.default_rng(0).permutation(180))
    arrived = [training_events([windows]), training_events(some.slice(start, 50) for start in range(0, 180, 50))]
    for name in ("user_P", "item_P", "label_P", "fold_U"):
        np.testing.assert_array_equal(*(getattr(events, name) for events in arrived))
    first, other = (factors_of(events, SMALL, None) for events in arrived)
    assert first.apart_GIF is not None
    assert other.apart_GIF is not None
    assert torch.equal(first.apart_GIF, other.apart_GIF)
    for name, tensor in first.kept().items():
        assert torch.equal(tensor, other.kept()[name]), name


def test_vectors_of_who_met_an_item_have_a_sign_of_their_own() -> None:
    """Whatever the numbers of users, in which the search for these vectors begins."""
    events = planted()[0]
    found = [met_vectors(user_P, events.item_P, (300, 100), 4) for user_P in (events.user_P, 299 - events.user_P)]
    np.testing.assert_allclose(*found, atol=1e-6)
    assert (found[0].max(axis=0) > -found[0].min(axis=0)).all()

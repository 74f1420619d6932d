"""The DST from embeddings to codes and back: disentanglement, purity, missing modalities, refusals."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_factors import CONFIG, FACTORS, IMAGE_DIM, TEXT_DIM, encode, known_factors, unexplained
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tokenizer.base.embeddings import BLOCK, MODALITIES, Embeddings, TokenizerError
from tokenizer.dst.branch import Branch
from tokenizer.dst.model import DST
from tokenizer.training.fitting import fit
from tokenizer.training.training import Training

ITEMS, TRAINED = 1200, slice(0, 1000)
CHANCE = 1 / FACTORS


@cache
def trained() -> tuple[DST, Embeddings, dict[str, Tensor]]:
    items, labels = known_factors(ITEMS)
    model = fit(items.select(TRAINED), CONFIG)
    assert isinstance(model, DST)
    return model, items, labels


def probe(part_ND: Tensor, label_N: Tensor, both_N: Tensor) -> float:
    """Held-out accuracy of a linear probe."""
    x, y = part_ND[both_N].numpy(), label_N[both_N].numpy()
    half = len(x) // 2
    return float(LogisticRegression(max_iter=200, C=0.3).fit(x[:half], y[:half]).score(x[half:], y[half:]))


def test_parts_carry_their_own_factor_and_not_the_others() -> None:
    model, items, labels = trained()
    parts, both = model.parts(encode(model, items)), items.has_both_N
    accuracy = {
        (part, factor): probe(vectors, labels[factor], both)
        for part, vectors in (("shared", parts.shared_ND), ("text", parts.text_ND), ("image", parts.image_ND))
        for factor in labels
    }
    assert min(accuracy[f, f] for f in labels) > 0.9, accuracy
    assert max(accuracy["text", "image"], accuracy["image", "text"]) < CHANCE + 0.1, accuracy
    leaks = [accuracy[pair] for pair in accuracy if pair[0] != pair[1]]
    assert max(leaks) < CHANCE + 0.25, accuracy


def test_shared_code_survives_a_withheld_modality() -> None:
    model, items, _ = trained()
    pairs = items.select(items.has_both_N)
    whole = encode(model, pairs)[:, 0]
    for modality in MODALITIES:
        assert (encode(model, pairs.only(modality))[:, 0] == whole).float().mean() >= 0.9


def test_what_is_left_over_has_mean_zero_under_every_first_shared_code() -> None:
    model, items, _ = trained()
    seen = items.select(TRAINED)
    shared = encode(model, seen)[:, model.layout.spans()["shared"]].long()
    unit = seen.normalised()
    for m in MODALITIES:
        branch, has = model.branch(m), seen.present(m)
        with torch.no_grad():
            u = branch.left_over(branch.features(branch.standardise(unit.vectors(m)[has])), shared[has])
        for code in shared[has, 0].unique():
            mean = u[shared[has, 0] == code].mean(dim=0)
            assert mean.square().mean() < 1e-4 * u.square().mean()


@pytest.mark.parametrize("width", [40, 6])
def test_a_linear_start_is_the_best_linear_code(width: int) -> None:
    dim = 16
    x = torch.randn(500, width, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, width)
    branch = Branch(width, dim, hidden=8, dropout=0.1, levels=1, codebook_size=4).eval()
    branch.start_from_components(x)
    with torch.no_grad():
        rebuilt = branch.rebuild(torch.zeros(500, dim), branch.features(x))
    left, strength, right = torch.linalg.svd(x, full_matrices=False)
    best = (left[:, :dim] * strength[:dim]) @ right[:dim]
    torch.testing.assert_close(rebuilt, best, atol=1e-3, rtol=1e-3)


def test_decoding_rebuilds_held_out_items_and_predicts_absent_ones() -> None:
    model, items, _ = trained()
    seen, held_out = items.select(TRAINED), items.select(slice(1000, None)).normalised()
    assert max(unexplained(model, held_out, seen).values()) < 0.1
    pairs = held_out.select(held_out.has_both_N)
    predicted = model.decode(encode(model, pairs.only("text")))[1]
    centre = model.branch("image").standardise.centre_D
    assert (predicted - pairs.image_ND).square().sum() < 0.7 * (pairs.image_ND - centre).square().sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 70), scale=st.floats(1e-3, 1e3))
def test_codes_depend_on_nothing_but_the_row(seed: int, size: int, scale: float) -> None:
    model, items, _ = trained()
    whole = encode(model, items)
    order = torch.randint(ITEMS, (size,), generator=torch.Generator().manual_seed(seed))
    some = items.select(order)
    scaled = Embeddings(some.text_ND * scale, some.image_ND * scale, some.has_text_N, some.has_image_N)
    assert torch.equal(encode(model, some), whole[order])
    assert torch.equal(encode(model, scaled), whole[order])


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 0.0, 1e30])
def test_rows_of_an_absent_modality_do_not_matter(junk: float) -> None:
    model, items, _ = trained()
    spoilt = Embeddings(
        items.text_ND.masked_fill(~items.has_text_N[:, None], junk),
        items.image_ND.masked_fill(~items.has_image_N[:, None], junk),
        items.has_text_N,
        items.has_image_N,
    )
    assert torch.equal(encode(model, spoilt), encode(model, items))


def test_training_ignores_what_stands_in_absent_rows() -> None:
    _, items, _ = trained()
    few = items.select(slice(0, 200))
    spoilt = Embeddings(
        few.text_ND.masked_fill(~few.has_text_N[:, None], float("nan")), few.image_ND, few.has_text_N, few.has_image_N
    )
    config = CONFIG.model_copy(update={"min_steps": 10})
    assert torch.equal(encode(fit(spoilt, config), items), encode(fit(few, config), items))


def test_absent_slots_hold_the_reserved_code_and_all_codes_fit() -> None:
    model, items, _ = trained()
    codes, spans = encode(model, items), model.layout.spans()
    assert codes.dtype == torch.int16
    assert codes.shape == (ITEMS, 7)
    assert (codes[:, spans["text"]] == model.layout.absent).all(dim=1).equal(~items.has_text_N)
    assert (codes[:, spans["image"]] == model.layout.absent).all(dim=1).equal(~items.has_image_N)
    assert (codes[:, spans["shared"]] < model.layout.absent).all()
    assert encode(model, items.select(slice(0, 0))).shape == (0, 7)


def test_encoding_leaves_the_mode_and_the_random_state_alone() -> None:
    model, items, _ = trained()
    reference = encode(model, items)
    model.train()
    try:
        assert torch.equal(encode(model, items), reference)
        assert model.training
    finally:
        model.eval()
    state = torch.get_rng_state()
    fit(items.select(slice(0, 200)), CONFIG.model_copy(update={"min_steps": 5}))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("levels", [{"text_levels": 0}, {"image_levels": 0}, {"text_levels": 0, "image_levels": 0}])
def test_parts_may_have_no_levels(levels: dict[str, int]) -> None:
    _, items, _ = trained()
    config = CONFIG.model_copy(update={"min_steps": 20} | levels)
    model = fit(items, config)
    codes = encode(model, items)
    assert codes.shape == (ITEMS, config.layout().slots)
    assert all(torch.isfinite(rebuilt).all() for rebuilt in model.decode(codes))


@pytest.mark.parametrize("known", MODALITIES)
def test_one_modality_everywhere_absent(known: str) -> None:
    _, items, _ = trained()
    unknown = {"text": "image", "image": "text"}[known]
    some = items.select(items.present(known)).only(known)
    model = fit(some, CONFIG.model_copy(update={"min_steps": 30}))
    assert model.known() == [known]
    codes = encode(model, some)
    assert (codes[:, model.layout.spans()[unknown]] == model.layout.absent).all()
    rebuilt = dict(zip(MODALITIES, model.decode(codes), strict=True))
    assert torch.isfinite(rebuilt[known]).all()
    assert (rebuilt[unknown] == 0).all()
    with pytest.raises(TokenizerError, match=f"without any {unknown}; withhold the {unknown}"):
        encode(model, items)


def test_refusals_of_what_cannot_train() -> None:
    _, items, _ = trained()
    with pytest.raises(TokenizerError, match=r"\d+ items.* codebooks of 8 codes; lower codebook_size"):
        fit(items.select(slice(0, 7)), CONFIG)
    few_images = Embeddings(items.text_ND, items.image_ND, items.has_text_N | True, torch.arange(ITEMS) < 5)
    with pytest.raises(TokenizerError, match="5 items with image"):
        fit(few_images, CONFIG)
    neither = torch.arange(ITEMS) != 9
    with pytest.raises(TokenizerError, match="item 9 has neither text nor image; leave such items out"):
        fit(Embeddings(items.text_ND, items.image_ND, neither, neither), CONFIG)


@pytest.mark.parametrize(("junk", "what"), [(float("nan"), "NaN or infinite"), (0.0, "all zero")])
def test_unusable_embeddings_are_refused_by_row(junk: float, what: str) -> None:
    model, items, _ = trained()
    text, on = items.text_ND.clone(), torch.ones(ITEMS, dtype=torch.bool)
    text[7] = junk
    spoilt = Embeddings(text, items.image_ND, on, items.has_image_N)
    message = rf"1 of {ITEMS} text embeddings are unusable.*row 7, is {what}"
    with pytest.raises(TokenizerError, match=message):
        fit(spoilt, CONFIG)
    with pytest.raises(TokenizerError, match=message):
        encode(model, spoilt)


def test_encoding_names_the_row_whatever_the_block() -> None:
    model, items, _ = trained()
    many = items.select(torch.arange(BLOCK + 9) % ITEMS)
    many.has_text_N[-2] = many.has_image_N[-2] = False
    with pytest.raises(TokenizerError, match=f"item {BLOCK + 7} has neither text nor image"):
        encode(model, many)


def test_refusals_of_what_does_not_fit_the_tokenizer() -> None:
    model, items, _ = trained()
    with pytest.raises(TokenizerError, match="40 dimensions, but the tokenizer was trained on 24"):
        model.encode(items.text_ND, items.text_ND, items.has_text_N, items.has_image_N)
    with pytest.raises(TokenizerError, match="neither text nor image"):
        model.encode(items.text_ND, items.image_ND, items.has_text_N & False, items.has_image_N & False)
    with pytest.raises(TokenizerError, match="not been trained"):
        encode(DST(CONFIG, TEXT_DIM, IMAGE_DIM), items)
    with pytest.raises(TokenizerError, match="bool presence"):
        Embeddings(items.text_ND, items.image_ND[:-1], items.has_text_N, items.has_image_N)
    with pytest.raises(TokenizerError, match="float matrix"):
        Embeddings(items.text_ND.long(), items.image_ND, items.has_text_N, items.has_image_N)
    with pytest.raises(TokenizerError, match="do not have the 7 slots"):
        model.decode(torch.zeros(3, 6, dtype=torch.int16))
    for row in ([8, 0, 0, 0, 0, 0, 0], [0, 0, 0, 9, 0, 0, 0], [0, 0, 0, 0, 0, 0, -1]):
        with pytest.raises(TokenizerError, match="codes must lie in 0 to 7"):
            model.decode(torch.tensor([row]))


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_divergence_stops_with_advice_and_leaves_nothing_to_go_on_from(method: str) -> None:
    _, items, _ = trained()
    wild = CONFIG.model_copy(update={"method": method, "learning_rate": 1.0, "weight_decay": 0.0})
    epochs: list[int] = []

    def note(training: Training) -> None:
        epochs.append(training.epoch)

    with pytest.raises(TokenizerError, match=r"training diverged in epoch \d+: .*lower learning_rate \(now 1\)") as e:
        fit(items, wild, on_epoch=note)
    assert f"epoch {len(epochs) + 1}:" in str(e.value)

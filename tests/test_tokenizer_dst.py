"""The tokenizer from embeddings to codes and back: training, purity, missing modalities, refusals."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tokenizer.config import TokenizerConfig
from tokenizer.dst import DST
from tokenizer.embeddings import Embeddings, TokenizerError
from tokenizer.training import fit

ITEMS, FACTORS = 1200, 8
CONFIG = TokenizerConfig(codebook_size=16, dim=32, hidden=64, epochs=1, min_steps=400, batch_size=128)


def known_factors(seed: int = 0) -> tuple[Embeddings, dict[str, torch.Tensor]]:
    """Items whose text and image share one factor and have one each of their own; some lack a modality."""
    g = torch.Generator().manual_seed(seed)
    labels = {f: torch.randint(FACTORS, (ITEMS,), generator=g) for f in ("shared", "text", "image")}

    def mixed(own: str, width: int) -> torch.Tensor:
        points = (torch.randn(FACTORS, 12, generator=g)[labels[f]] for f in ("shared", own))
        hidden = torch.cat(list(points), dim=1) @ torch.randn(24, 48, generator=g)
        clean = torch.tanh(hidden / 5) @ torch.randn(48, width, generator=g) + 3
        return clean + 0.5 * torch.randn(ITEMS, width, generator=g)

    has_text = torch.rand(ITEMS, generator=g) > 0.05
    has_image = (torch.rand(ITEMS, generator=g) > 0.1) | ~has_text
    return Embeddings(mixed("text", 40), mixed("image", 24), has_text, has_image), labels


@cache
def trained() -> tuple[DST, Embeddings, dict[str, torch.Tensor]]:
    items, labels = known_factors()
    return fit(items.select(slice(0, 1000)), CONFIG), items, labels


def encode(model: DST, items: Embeddings) -> torch.Tensor:
    return model.encode(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N)


def probe(part_ND: torch.Tensor, label_N: torch.Tensor, both_N: torch.Tensor) -> float:
    """Held-out accuracy of a linear probe; chance is 1/8."""
    x, y = part_ND[both_N].numpy(), label_N[both_N].numpy()
    half = len(x) // 2
    return LogisticRegression(max_iter=200, C=0.3).fit(x[:half], y[:half]).score(x[half:], y[half:])


def test_parts_carry_their_own_factor_and_not_the_others():
    model, items, labels = trained()
    parts, both = model.parts(encode(model, items)), items.has_both_N
    accuracy = {
        (part, factor): probe(vectors, labels[factor], both)
        for part, vectors in (("shared", parts.shared_ND), ("text", parts.text_ND), ("image", parts.image_ND))
        for factor in labels
    }
    assert min(accuracy[f, f] for f in labels) > 0.95, accuracy
    leaks = {pair: value for pair, value in accuracy.items() if pair[0] != pair[1]}
    assert max(leaks["shared", "text"], leaks["shared", "image"]) < 0.35, accuracy
    assert max(leaks["text", "image"], leaks["image", "text"]) < 0.25, accuracy
    assert max(leaks["text", "shared"], leaks["image", "shared"]) < 0.7, accuracy


def test_shared_code_survives_a_withheld_modality():
    model, items, _ = trained()
    pairs = items.select(items.has_both_N)
    whole = encode(model, pairs)[:, 0]
    for modality in ("text", "image"):
        assert (encode(model, pairs.only(modality))[:, 0] == whole).float().mean() > 0.6  # chance is below 0.1


def test_decoding_rebuilds_held_out_items_and_predicts_absent_ones():
    model, items, _ = trained()
    held_out = items.select(slice(1000, None)).normalised()
    text, image = model.decode(encode(model, held_out))
    for rebuilt, m in ((text, "text"), (image, "image")):
        original, has, centre = held_out.vectors(m), held_out.present(m), model.branch(m).standardise.centre_D
        error = (rebuilt - original)[has].square().sum() / (original[has] - centre).square().sum()
        assert error < 0.5
    pairs = held_out.select(held_out.has_both_N)
    predicted = model.decode(encode(model, pairs.only("text")))[1]
    centre = model.branch("image").standardise.centre_D
    assert (predicted - pairs.image_ND).square().sum() < 0.85 * (pairs.image_ND - centre).square().sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 70), scale=st.floats(1e-3, 1e3))
def test_codes_depend_on_nothing_but_the_row(seed: int, size: int, scale: float):
    model, items, _ = trained()
    whole = encode(model, items)
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(seed))[:size]
    some = items.select(order)
    scaled = Embeddings(some.text_ND * scale, some.image_ND * scale, some.has_text_N, some.has_image_N)
    assert torch.equal(encode(model, some), whole[order])
    assert torch.equal(encode(model, scaled), whole[order])


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 0.0, 1e30])
def test_rows_of_an_absent_modality_do_not_matter(junk: float):
    model, items, _ = trained()
    spoilt = Embeddings(
        items.text_ND.masked_fill(~items.has_text_N[:, None], junk),
        items.image_ND.masked_fill(~items.has_image_N[:, None], junk),
        items.has_text_N,
        items.has_image_N,
    )
    assert torch.equal(encode(model, spoilt), encode(model, items))


def test_training_ignores_what_stands_in_absent_rows():
    _, items, _ = trained()
    few = items.select(slice(0, 200))
    spoilt = Embeddings(
        few.text_ND.masked_fill(~few.has_text_N[:, None], float("nan")), few.image_ND, few.has_text_N, few.has_image_N
    )
    config = CONFIG.model_copy(update={"min_steps": 10})
    assert torch.equal(encode(fit(spoilt, config), items), encode(fit(few, config), items))


def test_absent_slots_hold_the_reserved_code_and_all_codes_fit():
    model, items, _ = trained()
    codes, spans = encode(model, items), model.layout.spans()
    assert codes.dtype == torch.int16
    assert codes.shape == (ITEMS, 7)
    assert (codes[:, spans["text"]] == model.layout.absent).all(dim=1).equal(~items.has_text_N)
    assert (codes[:, spans["image"]] == model.layout.absent).all(dim=1).equal(~items.has_image_N)
    assert (codes[:, spans["shared"]] < model.layout.absent).all()
    assert encode(model, items.select(slice(0, 0))).shape == (0, 7)


def test_encoding_leaves_the_mode_and_the_random_state_alone():
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


def test_one_modality_everywhere_absent():
    _, items, _ = trained()
    text_only = items.select(items.has_text_N).only("text")
    model = fit(text_only, CONFIG.model_copy(update={"min_steps": 30}))
    codes = encode(model, text_only)
    assert (codes[:, model.layout.spans()["image"]] == model.layout.absent).all()
    text, image = model.decode(codes)
    assert torch.isfinite(text).all()
    assert (image == 0).all()
    with pytest.raises(TokenizerError, match="without any image"):
        encode(model, items)


def test_same_seed_same_tokenizer_other_seed_another():
    _, items, _ = trained()
    few = items.select(slice(0, 300))
    config = CONFIG.model_copy(update={"min_steps": 20})
    first, second, other = fit(few, config), fit(few, config), fit(few, config.model_copy(update={"seed": 1}))
    again = second.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.state_dict().items())
    assert not torch.equal(first.shared.codebooks_LKD, other.shared.codebooks_LKD)


def test_progress_reports_every_epoch():
    _, items, _ = trained()
    seen: list[tuple[int, int]] = []
    fit(
        items.select(slice(0, 256)),
        CONFIG.model_copy(update={"min_steps": 6}),
        progress=lambda epoch, epochs, losses: seen.append((epoch, epochs)) if losses["rebuild"] > 0 else None,
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_refusals_say_what_is_wrong():
    model, items, _ = trained()
    with pytest.raises(TokenizerError, match=r"\d+ items.* codebooks of 16 codes; lower codebook_size"):
        fit(items.select(slice(0, 12)), CONFIG)
    few_images = Embeddings(items.text_ND, items.image_ND, items.has_text_N | True, torch.arange(ITEMS) < 5)
    with pytest.raises(TokenizerError, match="5 items with image"):
        fit(few_images, CONFIG)
    for broken, what in ((float("nan"), "NaN"), (0.0, "all zero")):
        text = items.text_ND.clone()
        text[7] = broken
        spoilt = Embeddings(text, items.image_ND, torch.ones(ITEMS, dtype=torch.bool), items.has_image_N)
        with pytest.raises(TokenizerError, match=rf"1 of {ITEMS} text embeddings are unusable.*row 7, is {what}"):
            fit(spoilt, CONFIG)
        with pytest.raises(TokenizerError, match="unusable"):
            encode(model, spoilt)
    with pytest.raises(TokenizerError, match="40 dimensions, but the tokenizer was trained on 24"):
        model.encode(items.text_ND, items.text_ND, items.has_text_N, items.has_image_N)
    with pytest.raises(TokenizerError, match="neither text nor image"):
        model.encode(items.text_ND, items.image_ND, items.has_text_N & False, items.has_image_N & False)
    with pytest.raises(TokenizerError, match="not been trained"):
        encode(DST(CONFIG, 40, 24), items)
    with pytest.raises(TokenizerError, match="bool presence"):
        Embeddings(items.text_ND, items.image_ND[:-1], items.has_text_N, items.has_image_N)
    with pytest.raises(TokenizerError, match="do not have the 7 slots"):
        model.decode(torch.zeros(3, 6, dtype=torch.int16))
    with pytest.raises(TokenizerError, match="codes must lie in 0 to 15"):
        model.decode(torch.full((3, 7), 16))


def test_divergence_stops_with_advice():
    _, items, _ = trained()
    wild = CONFIG.model_copy(update={"learning_rate": 1.0, "weight_decay": 0.0})
    with pytest.raises(TokenizerError, match=r"training diverged in epoch \d+: .*lower learning_rate \(now 1\)"):
        fit(items, wild)

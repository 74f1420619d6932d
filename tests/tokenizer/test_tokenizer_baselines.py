"""Residual k-means and RQ-VAE behind the tokenizer's interface, and what all three methods have in common."""

from functools import cache
from pathlib import Path

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_factors import CONFIG, IMAGE_DIM, TEXT_DIM, encode, known_factors, unexplained

from tokenizer.base import artefact
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.base.methods import build
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.training.fitting import fit

BASELINES = ("rq_kmeans", "rq_vae")
METHODS = ("dst", *BASELINES)
ITEMS, HELD_OUT = (known_factors(900)[0].select(part) for part in (slice(0, 700), slice(700, None)))


@cache
def trained(method: str) -> Tokenizer:
    return fit(ITEMS, CONFIG.model_copy(update={"method": method, "min_steps": 150}))


@pytest.mark.parametrize("method", BASELINES)
def test_all_levels_are_shared_ones(method: str) -> None:
    layout = trained(method).layout
    assert layout.levels == (7, 0, 0)
    assert layout.slots == CONFIG.layout().slots
    assert encode(trained(method), ITEMS).shape == (700, 7)


@pytest.mark.parametrize("method", BASELINES)
def test_codes_and_parts_fit_the_layout(method: str) -> None:
    model = trained(method)
    codes = encode(model, ITEMS)
    assert codes.dtype == torch.int16
    assert 0 <= int(codes.min()) <= int(codes.max()) < model.layout.absent
    parts = model.parts(codes)
    assert parts.shared_ND.abs().sum() > 0
    assert parts.text_ND.abs().sum() == parts.image_ND.abs().sum() == 0
    with pytest.raises(TokenizerError, match="do not have the 7 slots"):
        model.decode(codes[:, :3])
    with pytest.raises(TokenizerError, match="codes must lie in 0 to 7"):
        model.decode(torch.full((1, 7), model.layout.absent))


@pytest.mark.parametrize("items", [2 * CONFIG.codebook_size, TEXT_DIM + IMAGE_DIM - 1])
def test_fewer_items_than_numbers_of_a_vector_are_enough(items: int) -> None:
    few = ITEMS.select(slice(0, items))
    model = fit(few, CONFIG.model_copy(update={"method": "rq_kmeans"}))
    assert len(torch.unique(encode(model, few)[:, 0])) == CONFIG.codebook_size
    assert max(unexplained(model, few, few).values()) < 0.2


@pytest.mark.parametrize("method", BASELINES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 70))
def test_codes_depend_on_nothing_but_the_row(method: str, seed: int, size: int) -> None:
    model = trained(method)
    order = torch.randint(len(ITEMS), (size,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(encode(model, ITEMS.select(order)), encode(model, ITEMS)[order])


@pytest.mark.parametrize("method", BASELINES)
def test_decoding_is_nearer_than_the_mean_item(method: str) -> None:
    found = unexplained(trained(method), HELD_OUT, ITEMS)
    assert max(found.values()) < 0.3, found


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("junk", [float("nan"), 1e30])
def test_an_absent_modality_leaves_codes_that_tell_of_the_other(method: str, junk: float) -> None:
    model = trained(method)
    text = HELD_OUT.select(HELD_OUT.has_text_N).only("text")
    codes = encode(model, text)
    spoilt = Embeddings(text.text_ND, torch.full_like(text.image_ND, junk), text.has_text_N, text.has_image_N)
    assert torch.equal(encode(model, spoilt), codes)
    assert unexplained(model, text, ITEMS)["text"] < 0.5


@pytest.mark.parametrize("method", BASELINES)
def test_a_modality_that_no_item_has_is_left_out(method: str) -> None:
    texts = ITEMS.select(ITEMS.has_text_N).only("text")
    model = fit(texts, CONFIG.model_copy(update={"method": method, "min_steps": 20}))
    text, image = model.decode(encode(model, texts))
    assert torch.isfinite(text).all()
    assert image.abs().max() < 1e-6
    with pytest.raises(TokenizerError, match="without any image"):
        encode(model, ITEMS)


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_tokenizer_comes_back_the_same(method: str, tmp_path: Path) -> None:
    model, codes = trained(method), encode(trained(method), HELD_OUT)
    artefact.save(model, tmp_path, {}, {"text": "1", "image": "2"})
    loaded = artefact.load(tmp_path)
    assert type(loaded.model) is type(model)
    assert loaded.config.method == method
    assert torch.equal(encode(loaded.model, HELD_OUT), codes)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.decode(codes), model.decode(codes), strict=True))


def test_every_method_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    assert (
        len({artefact.save(trained(method), tmp_path / method, {}, {"text": "1", "image": "2"}) for method in METHODS})
        == 3
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_untrained_tokenizer_refuses_to_encode(method: str) -> None:
    with pytest.raises(TokenizerError, match="has not been trained; fit it or load an artefact"):
        encode(build(CONFIG.model_copy(update={"method": method}), TEXT_DIM, IMAGE_DIM), ITEMS)


def test_residual_kmeans_comes_as_near_as_faiss() -> None:
    model, on = trained("rq_kmeans"), torch.ones(len(HELD_OUT), dtype=torch.bool)
    whole = Embeddings(HELD_OUT.text_ND, HELD_OUT.image_ND, on, on).normalised()
    x_NE = torch.cat([whole.vectors(m) for m in MODALITIES], dim=1).numpy()
    train_NE = torch.cat([ITEMS.normalised().vectors(m) for m in MODALITIES], dim=1).numpy()
    reference = faiss.ResidualQuantizer(x_NE.shape[1], 7, 3)
    reference.cp.seed, reference.max_beam_size = CONFIG.seed, CONFIG.beam
    reference.train(train_NE)
    theirs = float(((x_NE - reference.decode(reference.compute_codes(x_NE))) ** 2).sum())
    ours_NE = torch.cat(model.decode(encode(model, whole)), dim=1).numpy()
    assert float(((x_NE - ours_NE) ** 2).sum()) == pytest.approx(theirs, rel=0.01)


def test_residual_kmeans_needs_a_power_of_two() -> None:
    with pytest.raises(TokenizerError, match="codebook_size that is a power of two, not 12; try 8"):
        fit(ITEMS, CONFIG.model_copy(update={"method": "rq_kmeans", "codebook_size": 12}))

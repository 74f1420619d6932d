"""The decoders as one vector a code: against an exact least-squares solution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings
from tokenizer.quality import code_vectors as code_vectors_module
from tokenizer.quality.code_vectors import code_vectors, sampled
from tokenizer.quality.consensus import encode
from tokenizer.training.fitting import fit


def catalogue(items: int) -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    text_ND, image_ND = torch.randn(items, 12, generator=generator), torch.randn(items, 8, generator=generator)
    has_image_N = torch.arange(items) % 5 > 0
    return Embeddings(text_ND, image_ND, torch.ones(items, dtype=torch.bool), has_image_N)


def test_the_sums_are_the_least_squares_solution() -> None:
    config = TokenizerConfig(
        shared_levels=1, text_levels=2, image_levels=1, codebook_size=8, dim=16, hidden=32, epochs=5, min_steps=200
    )
    items = catalogue(400)
    model = fit(items, config)
    codes_NS = encode(model, items)
    vectors_CV = code_vectors(model, codes_NS)
    assert vectors_CV.shape == (4 * 9, 20)
    assert vectors_CV.dtype == torch.float32

    rows_NS = codes_NS.long() + torch.arange(4) * 9
    one_hot_NC = torch.zeros(400, 36).scatter_(1, rows_NS, 1.0).double().numpy()
    decoded = [x.double().numpy() for x in model.decode(codes_NS)]
    wanted_NV = np.concatenate([(x - x.mean(0)) / (x - x.mean(0)).std() for x in decoded], axis=1)
    exact_NV = one_hot_NC @ np.linalg.lstsq(one_hot_NC, wanted_NV, rcond=None)[0]
    found_NV = one_hot_NC @ vectors_CV.double().numpy()
    unexplained = [np.square(x - wanted_NV).mean() for x in (found_NV, exact_NV)]
    assert unexplained[0] < unexplained[1] + 0.01
    assert unexplained[1] < 0.5


def test_residual_k_means_is_its_codebooks_already() -> None:
    items = catalogue(400)
    model = fit(
        items, TokenizerConfig(method="rq_kmeans", shared_levels=2, text_levels=1, image_levels=1, codebook_size=8)
    )
    codes_NS = encode(model, items)
    vectors_CV = code_vectors(model, codes_NS)
    found_NV = vectors_CV[codes_NS.long() + torch.arange(4) * 9].sum(1)
    text_NE = model.decode(codes_NS)[0]
    text_NE = text_NE - text_NE.mean(0)
    torch.testing.assert_close(found_NV[:, :12], text_NE / text_NE.square().mean().sqrt(), atol=0.05, rtol=0)


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 30))
def test_a_sample_of_samples_is_that_of_all(seed: int, items: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    codes_NS = rng.integers(0, 4, (items, 3)).astype(np.int16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_vectors_module, "MOST_ITEMS", most)
        whole_NS = sampled(codes_NS)
        found_NS = np.empty((0, 3), np.int16)
        for part_NS in np.array_split(rng.permutation(codes_NS), 4):
            found_NS = sampled(np.concatenate([found_NS, sampled(part_NS)]))
    np.testing.assert_array_equal(found_NS, whole_NS)
    different = {tuple(row) for row in codes_NS.tolist()}
    assert len(whole_NS) == min(most, len(different))
    assert {tuple(row) for row in whole_NS.tolist()} <= different


def test_a_sample_has_its_share_of_every_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_vectors_module, "MOST_ITEMS", 2000)
    codes_NS = np.stack(np.meshgrid(*[np.arange(22, dtype=np.int16)] * 3), -1).reshape(-1, 3)
    for code_N in sampled(codes_NS).T:
        assert np.bincount(code_N, minlength=22).min() > 50  # of 91 on average

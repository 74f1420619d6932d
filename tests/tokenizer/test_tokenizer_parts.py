"""The tokenizer's pieces against slow references: vCLUB, alignment, embeddings."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import BLOCK, Embeddings, TokenizerError
from tokenizer.base.networks import Standardiser
from tokenizer.dst.alignment import agreement_loss, consensus, contrastive_loss, geometry_loss
from tokenizer.dst.information import VCLUB, cross_covariance


def test_closed_form_bound_is_the_mean_over_all_pairs() -> None:
    torch.manual_seed(0)
    club = VCLUB(3, 2, hidden=8)
    x, y = torch.randn(7, 3), torch.randn(7, 2)
    y = y + torch.cat([x[:, :1], x[:, :1]], dim=1)
    descent = torch.optim.SGD(club.parameters(), 0.05)
    for _ in range(200):
        descent.zero_grad()
        club.mismatch(x, y).backward()
        descent.step()
    scaled = y / (y - y.mean(dim=0)).square().mean().sqrt()

    def log_density(i: int, j: int) -> Tensor:
        mean, log_variance = club.mean(x[i : i + 1])[0], club.log_variance(x[i : i + 1])[0]
        return (-((scaled[j] - mean).square()) / log_variance.exp() - log_variance).sum() / 2

    own = torch.stack([log_density(i, i) for i in range(7)])
    every = torch.stack([log_density(i, j) for i, j in product(range(7), repeat=2)])
    slow = own.mean() - every.mean()
    assert slow > 0
    assert torch.allclose(club.bound(x, y), slow, atol=1e-4)


def test_bound_is_never_negative_and_tells_dependence() -> None:
    torch.manual_seed(1)
    club, other = VCLUB(2, 2), VCLUB(2, 2)
    x = torch.randn(400, 2)
    same, independent = x + 0.1 * torch.randn(400, 2), torch.randn(400, 2)
    optimiser = torch.optim.Adam([*club.parameters(), *other.parameters()], 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        (club.mismatch(x, same) + other.mismatch(x, independent)).backward()
        optimiser.step()
    assert club.bound(x, same) > 1
    assert 0 <= other.bound(x, independent) < 0.3
    assert club.bound(x, -5 * same) == 0


def test_cross_covariance_sees_linear_dependence() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 6, generator=g), torch.randn(500, 4, generator=g)
    assert cross_covariance(x, y) < 0.02
    assert cross_covariance(x, 7 * x @ torch.randn(6, 4, generator=g) + 3) > 0.3
    assert cross_covariance(x, torch.ones(500, 4)) == 0


def test_alignment_losses() -> None:
    torch.manual_seed(0)
    z = F.normalize(torch.randn(16, 8), dim=1)
    assert contrastive_loss(z, z, 0.1) < contrastive_loss(z, z.roll(1, dims=0), 0.1)
    assert geometry_loss(z, 3 * z) < 1e-10
    assert agreement_loss(z, z) == 0
    assert torch.allclose(agreement_loss(z, -z), torch.tensor(4.0))


def test_consensus_weighs_what_is_there() -> None:
    torch.manual_seed(0)
    z, other = (F.normalize(torch.randn(16, 8), dim=1) for _ in range(2))
    on, off = torch.ones(16, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
    for share in (0.1, 0.5, 0.9):
        assert torch.allclose(consensus(z, z * float("nan"), on, off, share), z, atol=1e-6)
        assert torch.allclose(consensus(z * float("inf"), other, off, on, share), other, atol=1e-6)
        whole = F.normalize(share * z + (1 - share) * other, dim=1)
        assert torch.allclose(consensus(z, other, on, on, share), whole, atol=1e-6)


def test_a_standardiser_centres_scales_and_inverts() -> None:
    made = Standardiser(6)
    x = 0.01 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) + 5
    made.learn(x)
    assert made(x).mean(dim=0).abs().max() < 1e-2
    assert made(x).square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(made.invert(made(x)), x)


def test_unusable_rows_are_named_whatever_the_block() -> None:
    row, count = BLOCK + 7, BLOCK + 20
    on, x = torch.ones(count, dtype=torch.bool), torch.ones(count, 2, dtype=torch.float16)
    x[row] = float("inf")
    with pytest.raises(TokenizerError, match=f"text embeddings are unusable.*row {row}, is NaN or infinite"):
        Embeddings(x, x, on, on).check_usable()
    alone = on.clone()
    alone[row] = False
    with pytest.raises(TokenizerError, match=f"item {row} has neither text nor image"):
        Embeddings(x, x, alone, alone).check_usable()
    Embeddings(x, torch.ones_like(x), alone, on).check_usable()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalising_neither_overflows_nor_vanishes(scale: float) -> None:
    x, on = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, dtype=torch.bool)
    found = Embeddings(x * scale, x, on, ~on).normalised()
    assert torch.allclose(found.text_ND, F.normalize(x, dim=1), atol=1e-6)
    assert (found.image_ND == 0).all()


def test_configuration_refuses_what_makes_no_sense() -> None:
    assert TokenizerConfig(text_levels=1).layout().slots == 6
    for wrong in ({"codebook_size": 1}, {"learning_rate": 0}, {"shared_levels": 0}, {"codebooksize": 5}):
        with pytest.raises(ValidationError):
            TokenizerConfig.model_validate(wrong)

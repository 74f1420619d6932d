"""The tokenizer's pieces against slow references: quantiser, codebook learning, vCLUB, alignment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from tokenizer.alignment import agreement_loss, consensus, contrastive_loss, geometry_loss
from tokenizer.codebooks import CodebookLearner
from tokenizer.config import TokenizerConfig
from tokenizer.information import VCLUB, cross_covariance
from tokenizer.quantiser import ResidualQuantiser


def quantiser(levels: int, size: int, dim: int, seed: int = 0) -> ResidualQuantiser:
    made = ResidualQuantiser(levels, size, dim)
    made.codebooks_LKD.copy_(torch.randn(levels, size, dim, generator=torch.Generator().manual_seed(seed)))
    made.initialised.fill_(True)
    return made


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(0, 4), size=st.integers(2, 9), dim=st.integers(1, 6))
def test_greedy_residual_codes_match_a_plain_loop(seed: int, levels: int, size: int, dim: int):
    made = quantiser(levels, size, dim, seed).double()
    x = torch.randn(5, dim, generator=torch.Generator().manual_seed(seed + 1)).double()
    codes = made.encode(x)
    for row, vector in zip(codes, x, strict=True):
        left = vector
        for level, code in enumerate(row):
            distances = [(left - entry).square().sum() for entry in made.codebooks_LKD[level]]
            assert int(code) == min(range(size), key=lambda k: distances[k])
            left = left - made.codebooks_LKD[level, code]
        assert torch.allclose(made.lookup(row[None])[0] + left, vector)
    assert torch.equal(made(x).codes_BL, codes)


def test_ties_go_to_the_lowest_code():
    made = quantiser(1, 4, 3).double()
    made.codebooks_LKD[0, 3] = made.codebooks_LKD[0, 1]
    made.codebooks_LKD[0, 2] = -made.codebooks_LKD[0, 1]
    x = torch.stack([made.codebooks_LKD[0, 1], torch.zeros(3).double()])
    made.codebooks_LKD[0, 0] = 100.0
    assert made.encode(x)[:, 0].tolist() == [1, 1]


def test_gradient_passes_straight_through():
    made = quantiser(2, 5, 4)
    x = torch.randn(6, 4, requires_grad=True)
    out = made(x)
    assert torch.allclose(out.vectors_BD, made.lookup(out.codes_BL), atol=1e-6)
    weight = torch.randn(6, 4)
    (gradient,) = torch.autograd.grad((out.vectors_BD * weight).sum(), x)
    assert torch.allclose(gradient, weight)


def test_kmeans_finds_well_separated_clusters_coarse_to_fine():
    g = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(4, 8, generator=g) * 20, torch.randn(4, 8, generator=g)
    x = (coarse[:, None] + fine[None]).reshape(-1, 8).repeat(20, 1)
    made = ResidualQuantiser(2, 4, 8)
    CodebookLearner(made, decay=0.9, revive_below=0.05, seed=0).initialise(x)
    assert (made.lookup(made.encode(x)) - x).square().mean() < 1e-4


def test_moving_averages_follow_and_dead_codes_revive():
    made = ResidualQuantiser(1, 4, 2)
    learner = CodebookLearner(made, decay=0.5, revive_below=0.05, seed=0)
    corners = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]]).repeat(8, 1)
    learner.initialise(corners)
    moved = corners + 1.0
    moved[moved[:, 0] > 5] = torch.tensor([1.0, 1.0])  # two corners lose all their items
    for _ in range(40):
        learner.update(made(moved))
    found = made.codebooks_LKD[0]
    assert all((found - target).norm(dim=1).min() < 0.05 for target in moved.unique(dim=0))
    assert all((moved - entry).norm(dim=1).min() < 0.05 for entry in found)


def test_closed_form_bound_is_the_mean_over_all_pairs():
    torch.manual_seed(0)
    club = VCLUB(3, 2, hidden=8)
    x, y = torch.randn(7, 3), torch.randn(7, 2)
    y = y + torch.cat([x[:, :1], x[:, :1]], dim=1)
    for _ in range(200):
        club.zero_grad()
        club.mismatch(x, y).backward()
        with torch.no_grad():
            for parameter in club.parameters():
                parameter -= 0.05 * parameter.grad
    scaled = y / (y - y.mean(dim=0)).square().mean().sqrt()

    def log_density(i: int, j: int) -> torch.Tensor:
        mean, log_variance = club.mean(x[i : i + 1])[0], club.log_variance(x[i : i + 1])[0]
        return (-((scaled[j] - mean).square()) / log_variance.exp() - log_variance).sum() / 2

    slow = sum(log_density(i, i) - sum(log_density(i, j) for j in range(7)) / 7 for i in range(7)) / 7
    assert slow > 0
    assert torch.allclose(club.bound(x, y), slow, atol=1e-4)


def test_bound_is_never_negative_and_tells_dependence():
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


def test_cross_covariance_sees_linear_dependence():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 6, generator=g), torch.randn(500, 4, generator=g)
    assert cross_covariance(x, y) < 0.02
    assert cross_covariance(x, 7 * x @ torch.randn(6, 4, generator=g) + 3) > 0.3
    assert cross_covariance(x, torch.ones(500, 4)) == 0


def test_alignment_losses_and_consensus():
    torch.manual_seed(0)
    z = F.normalize(torch.randn(16, 8), dim=1)
    assert contrastive_loss(z, z, 0.1) < contrastive_loss(z, z.roll(1, dims=0), 0.1)
    assert geometry_loss(z, 3 * z) < 1e-10
    assert agreement_loss(z, z) == 0
    assert torch.allclose(agreement_loss(z, -z), torch.tensor(4.0))
    on, off = torch.ones(16, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
    assert torch.allclose(consensus(z, z * float("nan"), on, off), z, atol=1e-6)
    other = F.normalize(torch.randn(16, 8), dim=1)
    assert torch.allclose(consensus(z, other, on, on), F.normalize(z + other, dim=1))


def test_configuration_refuses_what_makes_no_sense():
    assert TokenizerConfig(text_levels=1).layout().slots == 6
    for wrong in ({"codebook_size": 1}, {"learning_rate": 0}, {"shared_levels": 0}, {"codebooksize": 5}):
        with pytest.raises(ValidationError):
            TokenizerConfig(**wrong)

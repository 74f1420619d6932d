"""Residual quantisation and codebook learning against slow references."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenizer.quantisation.codebooks import CodebookLearner
from tokenizer.quantisation.quantiser import ResidualQuantiser

SEEDS = st.integers(0, 1000)


def quantiser(levels: int, size: int, dim: int, seed: int = 0) -> ResidualQuantiser:
    made = ResidualQuantiser(levels, size, dim)
    made.codebooks_LKD.copy_(torch.randn(levels, size, dim, generator=torch.Generator().manual_seed(seed)))
    made.initialised.fill_(True)
    return made


def drawn(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed + 10_000), dtype=torch.float64)


def errors(made: ResidualQuantiser, x_BD: Tensor, codes_BL: Tensor) -> Tensor:
    return (x_BD - made.lookup(codes_BL)).square().sum(dim=1)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, levels=st.integers(0, 4), size=st.integers(2, 9), dim=st.integers(1, 6))
def test_greedy_residual_codes_match_a_plain_loop(seed: int, levels: int, size: int, dim: int) -> None:
    made, x = quantiser(levels, size, dim, seed).double(), drawn(5, dim, seed)
    codes = made.encode(x)
    for row, vector in zip(codes, x, strict=True):
        left = vector
        for level, code in enumerate(row):
            distances = [float((left - entry).square().sum()) for entry in made.codebooks_LKD[level]]
            assert int(code) == min(range(size), key=distances.__getitem__)
            left = left - made.codebooks_LKD[level, code]
        assert torch.allclose(made.lookup(row[None])[0] + left, vector)
    assert torch.equal(made.float()(x).codes_BL, codes)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, levels=st.integers(1, 3), size=st.integers(2, 4), dim=st.integers(1, 4), more=st.integers(0, 3))
def test_a_beam_that_keeps_every_path_finds_the_nearest_sum_of_all(
    seed: int, levels: int, size: int, dim: int, more: int
) -> None:
    made, x = quantiser(levels, size, dim, seed).double(), drawn(6, dim, seed)
    every_CL = torch.tensor(list(product(range(size), repeat=levels)))
    nearest_B = torch.cdist(x, made.lookup(every_CL)).argmin(dim=1)
    assert torch.equal(made.encode(x, beam=size ** (levels - 1) + more), every_CL[nearest_B])


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 9), dim=st.integers(1, 6), beam=st.integers(1, 12))
def test_of_two_levels_any_beam_is_at_least_as_near_as_greedy(seed: int, size: int, dim: int, beam: int) -> None:
    made, x = quantiser(2, size, dim, seed).double(), drawn(20, dim, seed)
    assert (errors(made, x, made.encode(x, beam)) <= errors(made, x, made.encode(x)) + 1e-12).all()


def test_a_wider_beam_comes_nearer_on_the_whole() -> None:
    made, x = quantiser(4, 8, 6).double(), drawn(300, 6, 0)
    by_beam = [float(errors(made, x, made.encode(x, beam)).mean()) for beam in (1, 2, 5, 20)]
    assert by_beam == sorted(by_beam, reverse=True)
    assert by_beam[-1] < 0.7 * by_beam[0]


def test_ties_go_to_the_lowest_code() -> None:
    made = quantiser(1, 4, 3).double()
    made.codebooks_LKD[0, 3] = made.codebooks_LKD[0, 1]
    made.codebooks_LKD[0, 2] = -made.codebooks_LKD[0, 1]
    x = torch.stack([made.codebooks_LKD[0, 1], torch.zeros(3).double()])
    made.codebooks_LKD[0, 0] = 100.0
    assert made.encode(x)[:, 0].tolist() == [1, 1]


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, beam=st.integers(1, 9))
def test_of_equal_codebook_vectors_the_lowest_codes_win_whatever_the_beam(seed: int, beam: int) -> None:
    twice = quantiser(3, 8, 3, seed).double()
    twice.codebooks_LKD[:, 4:] = twice.codebooks_LKD[:, :4]
    x = drawn(10, 3, seed)
    assert int(twice.encode(x, beam).max()) < 4


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, beam=st.integers(1, 6), size=st.integers(1, 13), tied=st.booleans())
def test_codes_do_not_depend_on_batch_order_or_repetition(seed: int, beam: int, size: int, tied: bool) -> None:
    made, x = quantiser(3, 7, 5, seed).double(), drawn(24, 5, seed)
    if tied:
        made.codebooks_LKD[:, 5:] = made.codebooks_LKD[:, :2] * (1 + 1e-14)
    whole = made.encode(x, beam)
    order = torch.randint(len(x), (40,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat([made.encode(part, beam) for part in x[order].split(size)]), whole[order])
    assert made.encode(x[:0], beam).shape == (0, 3)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, levels=st.integers(1, 4))
def test_following_given_codes_leaves_what_a_plain_loop_leaves(seed: int, levels: int) -> None:
    made, x = quantiser(levels, 5, 3, seed), drawn(7, 3, seed).float()
    codes = torch.randint(5, (7, levels), generator=torch.Generator().manual_seed(seed))
    followed = made.follow(x, codes)
    left = x
    for level in range(levels):
        assert torch.allclose(followed.residuals_LBD[level], left, atol=1e-5)
        left = left - made.codebooks_LKD[level, codes[:, level]]
    assert torch.allclose(followed.vectors_BD, x - left, atol=1e-5)
    assert torch.equal(followed.codes_BL, codes)


def test_gradient_passes_straight_through() -> None:
    made = quantiser(2, 5, 4)
    x = torch.randn(6, 4, requires_grad=True)
    out = made(x)
    assert torch.allclose(out.vectors_BD, made.lookup(out.codes_BL), atol=1e-6)
    weight = torch.randn(6, 4)
    (gradient,) = torch.autograd.grad((out.vectors_BD * weight).sum(), x)
    assert torch.allclose(gradient, weight)


def test_kmeans_finds_well_separated_clusters_coarse_to_fine() -> None:
    g = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(4, 8, generator=g) * 20, torch.randn(4, 8, generator=g)
    x = (coarse[:, None] + fine[None]).reshape(-1, 8).repeat(20, 1)
    made = ResidualQuantiser(2, 4, 8)
    learner = CodebookLearner(made, decay=0.9, revive_below=0.05, seed=0)
    learner.initialise(x)
    assert (made.lookup(made.encode(x)) - x).square().mean() < 1e-4
    assert torch.allclose(learner.shares_LK, torch.full((2, 4), 0.25))
    assert torch.allclose(learner.sums_LKD / learner.shares_LK[:, :, None], made.codebooks_LKD, atol=1e-4)


def residual_means(x_ND: Tensor, codes_NL: Tensor, before_LKD: Tensor) -> Tensor:
    """By level and code the plain mean of the residuals; a code that nothing chose stays where it was."""
    means_LKD, left_ND = before_LKD.clone(), x_ND.clone()
    for level, codes_N in enumerate(codes_NL.T.tolist()):
        for code in set(codes_N):
            means_LKD[level, code] = left_ND[[i for i, c in enumerate(codes_N) if c == code]].mean(dim=0)
        left_ND = left_ND - means_LKD[level, codes_N]
    return means_LKD


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, levels=st.integers(1, 3))
def test_settled_codebooks_are_the_means_of_what_chose_them(seed: int, levels: int) -> None:
    made, x = quantiser(levels, 6, 3, seed), drawn(40, 3, seed).float()
    codes = torch.randint(5, (40, levels), generator=torch.Generator().manual_seed(seed))  # nothing chooses code 5
    expected = residual_means(x, codes, made.codebooks_LKD)
    CodebookLearner(made, decay=0.9, revive_below=0, seed=0).settle(x, codes)
    assert torch.allclose(made.codebooks_LKD, expected, atol=1e-5)


def test_codebooks_are_ratios_of_moving_averages() -> None:
    made = quantiser(2, 3, 2)
    learner = CodebookLearner(made, decay=0.8, revive_below=0, seed=0)
    learner.initialise(drawn(30, 2, 0).float())
    shares, sums = learner.shares_LK.clone(), learner.sums_LKD.clone()
    for seed in range(1, 6):
        batch = made(drawn(12, 2, seed).float())
        for level in range(2):
            for code in range(3):
                chose_B = batch.codes_BL[:, level] == code
                shares[level, code] = 0.8 * shares[level, code] + 0.2 * chose_B.float().mean()
                own_sum_D = batch.residuals_LBD[level][chose_B].sum(dim=0) / 12
                sums[level, code] = 0.8 * sums[level, code] + 0.2 * own_sum_D
        learner.update(batch)
        assert torch.allclose(learner.shares_LK, shares, atol=1e-6)
        assert torch.allclose(made.codebooks_LKD, sums / shares[:, :, None], atol=1e-4)


def test_moving_averages_follow_and_dead_codes_revive() -> None:
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


@pytest.mark.parametrize("decay", [0.5, 0.98])
def test_without_revival_an_unused_code_never_moves(decay: float) -> None:
    made = ResidualQuantiser(1, 4, 2)
    learner = CodebookLearner(made, decay=decay, revive_below=0, seed=0)
    learner.initialise(drawn(40, 2, 0).float())
    before = made.codebooks_LKD.clone()
    for seed in range(3000):
        learner.update(made.follow(drawn(4, 2, seed).float(), torch.zeros(4, 1, dtype=torch.int64)))
    assert torch.allclose(made.codebooks_LKD[0, 1:], before[0, 1:], rtol=1e-3)
    assert not torch.allclose(made.codebooks_LKD[0, 0], before[0, 0], rtol=1e-3)


def test_a_batch_of_nothing_teaches_nothing() -> None:
    made = quantiser(2, 4, 3)
    learner = CodebookLearner(made, decay=0.9, revive_below=0.05, seed=0)
    learner.initialise(drawn(30, 3, 0).float())
    before = made.codebooks_LKD.clone()
    learner.update(made(torch.zeros(0, 3)))
    assert torch.equal(made.codebooks_LKD, before)

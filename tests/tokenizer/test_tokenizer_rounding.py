"""Codes that float32 finds first are those of float64, whatever the input: compared with float64 alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.methods import build
from tokenizer.base.networks import Network
from tokenizer.base.tokenizer import Encoder, Tokenizer
from tokenizer.quantisation.quantiser import ResidualQuantiser

SEEDS = st.integers(0, 2**31)
SMALL = TokenizerConfig(shared_levels=2, codebook_size=16, dim=8, hidden=24)


def noise(config: TokenizerConfig, text_dim: int, image_dim: int, seed: int, weight: float = 1.0) -> Tokenizer:
    """A tokenizer whose networks are drawn and whose codebooks are noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config, text_dim, image_dim)
        for parameter in model.parameters():
            parameter.data.mul_(weight)
        for name, buffer in model.named_buffers():
            if "codebooks" in name:
                buffer.normal_()
            if name.endswith("centre_D"):
                buffer.normal_().div_(2 * len(buffer) ** 0.5)
            if name.endswith("spread"):
                buffer.fill_(len(str(seed)) / 20)
    model.seen_2.fill_(True)
    return model.eval()


def exactly(encode: Encoder, *inputs: Tensor) -> Tensor:
    """Every row in float64."""
    slow = Encoder.__new__(Encoder)
    slow.exact, slow.fast = encode.exact, None
    return slow(*inputs)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    method=st.sampled_from(["dst", "rq_kmeans", "rq_vae"]),
    beam=st.sampled_from([1, 1, 2, 5]),
    weight=st.sampled_from([1.0, 0.05, 20.0]),
    kind=st.sampled_from(["noise", "constant", "twins", "near", "coarse", "opposite"]),
    repeated=st.booleans(),
)
def test_codes_are_those_of_float64(
    seed: int, method: str, beam: int, weight: float, kind: str, repeated: bool
) -> None:
    config = SMALL.model_copy(update={"method": method, "beam": beam})
    model = noise(config, 20, 30, seed, weight)
    if repeated:  # ties, exact and by less than float32 can tell
        for module in model.modules():
            if isinstance(module, ResidualQuantiser):
                module.codebooks_LKD[:, 8:] = module.codebooks_LKD[:, :8]
                module.codebooks_LKD[:, 12:] *= 1 + 2**-20
    generator = torch.Generator().manual_seed(seed)
    text, image = torch.randn(300, 20, generator=generator), torch.randn(300, 30, generator=generator)
    if kind == "constant":
        text, image = text.sign().abs() * text[:, :1].abs(), image.sign() * 3e-30
    elif kind == "twins":
        text, image = text[:1].expand(300, 20).clone(), image[:1].expand(300, 30).clone()
    elif kind == "near":
        text, image = text[:1] + 1e-6 * text, image[:1] + 1e-6 * image
    elif kind == "coarse":
        text, image = text.round() + 0.5, image.round() + 0.5
    elif kind == "opposite":
        text, image = text * 10.0 ** torch.arange(300)[:, None].remainder(60).sub(30), -text.repeat(1, 2)[:, :30]
    has_text, has_image = (torch.rand(300, generator=generator) < 0.8 for _ in range(2))
    has_image |= ~has_text
    encode, inputs = Encoder(model), (text, image, has_text, has_image)
    assert torch.equal(encode(*inputs), exactly(encode, *inputs))
    assert torch.equal(encode(*(x[:7] for x in inputs)), exactly(encode, *inputs)[:7])


def test_of_noise_most_rows_are_sure_and_float64_is_for_the_rest() -> None:
    config = TokenizerConfig(codebook_size=64)
    encode = Encoder(noise(config, 384, 512, 0))
    generator = torch.Generator().manual_seed(0)
    has = torch.ones(3000, dtype=torch.bool)
    inputs = torch.randn(3000, 384, generator=generator), torch.randn(3000, 512, generator=generator), has, has
    again: list[int] = []
    slow = encode.exact.assign
    encode.exact.assign = lambda block: (again.append(len(block)), slow(block))[1]  # type: ignore[method-assign,misc]
    assert torch.equal(encode(*inputs), exactly(encode, *inputs))
    assert 0 < again[0] < 0.3 * len(has)


def test_a_tokenizer_or_vectors_in_float64_are_read_in_float64() -> None:
    model = noise(SMALL, 20, 30, 1)
    has = torch.ones(50, dtype=torch.bool)
    text, image = torch.randn(50, 20).double() * 1e200, torch.randn(50, 30).double()
    assert Encoder(noise(SMALL, 20, 30, 1).double()).fast is None
    assert torch.equal(model.encode(text, image, has, has), model.encode(text / 1e200, image, has, has))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, width=st.integers(1, 600), weight=st.sampled_from([0.01, 1.0, 30.0]), aligned=st.booleans())
def test_a_network_in_float32_stays_within_its_bound(seed: int, width: int, weight: float, aligned: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(width, 40, 12, 0.1).eval()
        for parameter in network.parameters():
            parameter.data.mul_(weight)
        x = torch.randn(20, width)
    if aligned:  # with the weights: sums as large as they can be
        x[:12] = network.linear.weight.data
    moved = torch.randn(20, width, generator=torch.Generator().manual_seed(seed)).double() * 1e-5
    with torch.no_grad():
        fast = network(x).double()
        error = network.bound()(x, moved.norm(dim=1))
        assert ((network.double()(x.double() + moved) - fast).norm(dim=1) <= error).all()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, beam=st.integers(1, 6), size=st.integers(2, 20), dim=st.integers(1, 64), error=st.floats(0, 0.05))
def test_codes_that_a_search_is_sure_of_are_those_of_all_vectors_so_near(
    seed: int, beam: int, size: int, dim: int, error: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    made = ResidualQuantiser(3, size, dim)
    made.codebooks_LKD.copy_(torch.randn(3, size, dim, generator=generator))
    x = torch.randn(100, dim, generator=generator)
    codes, sure = made.search(x, torch.full((100,), error), beam)
    away = torch.randn(100, dim, generator=generator, dtype=torch.float64)
    exact = made.double().encode(x + 0.999 * error * away / away.norm(dim=1, keepdim=True), beam)
    assert torch.equal(codes[sure], exact[sure])


@pytest.mark.parametrize("beam", [1, 3])
def test_a_search_is_sure_of_what_is_far_from_every_border(beam: int) -> None:
    made = ResidualQuantiser(2, 4, 2)
    made.codebooks_LKD.copy_(torch.tensor([[[0.0, 0], [9, 0], [0, 9], [9, 9]], [[0, 0], [1, 0], [0, 1], [1, 1]]]))
    x = made.lookup(torch.cartesian_prod(torch.arange(4), torch.arange(4))) + 0.01
    codes, sure = made.search(x, torch.full((16,), 0.01))
    assert sure.all()
    assert torch.equal(codes, torch.cartesian_prod(torch.arange(4), torch.arange(4)))
    assert not made.search(x, torch.full((16,), 0.5), beam)[1].any()

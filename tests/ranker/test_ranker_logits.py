"""What a logit may depend on, of every ranker, and what candidates score against a memory."""

import pytest
import torch
from test_ranker_attention import CPU, LAYOUT
from torch import Tensor, nn

from ranker.architectures import BASELINES, build
from ranker.config import RankerConfig
from ranker.hmat.rotary import plain_rotation
from schemas.semantic_id import Layout

ARCHS = ("hmat", *BASELINES)


DECODED_CV = torch.randn(LAYOUT.slots * (LAYOUT.codebook_size + 1), 5, generator=torch.Generator().manual_seed(0))
KNOWN = {  # what a ranker may know of an item
    "codes": {},
    "item_id": {"codes": False, "item_id": {}},
    "all": {
        "item_id": {"dropout": 0.2},
        "decoded": ["text"],
        "decoded_dropout": 0.2,
        "free_dropout": 0.3,
    },
}


def made(config: RankerConfig) -> nn.Module:
    """A model that knows nearly all items of :func:`windows`."""
    met_I = torch.cat([windows(batch, items)[1].flatten()[1:] for batch in range(1, 5) for items in range(5, 11)])
    decoded_CV = DECODED_CV if config.decoded else None
    return build(config, LAYOUT, decoded_CV, hash_I=met_I.unique() if config.item_id else None)


@pytest.fixture(params=[(arch, known) for arch in ARCHS for known in KNOWN], ids=" ".join)
def model(request: pytest.FixtureRequest) -> nn.Module:
    arch, known = request.param
    config = RankerConfig.model_validate({"arch": arch, "dim": 16, "layers": 3, "heads": 2, "seed": 1} | KNOWN[known])
    model = made(config).eval()
    for parameter in model.parameters():  # nothing may be hidden by a zero
        nn.init.normal_(parameter, std=0.3)
    return model


def windows(batch: int, items: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * 100 + items)
    tokens = torch.randint(0, LAYOUT.absent + 1, (batch, items, LAYOUT.slots), generator=generator)
    ids = torch.randint(0, 2**62, (batch, items), generator=generator)
    return tokens, ids, torch.randint(0, 2, (batch, items), generator=generator)


def test_a_label_reaches_later_logits_only(model: nn.Module) -> None:
    tokens, ids, labels = windows(2, 9)
    logits = model(tokens, ids, labels)
    for item in range(9):
        flipped = labels.clone()
        flipped[:, item] ^= 1
        change = (model(tokens, ids, flipped) - logits).abs()
        assert torch.equal(change[:, : item + 1], torch.zeros(2, item + 1))
        assert (change[:, item + 1 :] > 0).all()


def test_an_item_reaches_its_own_and_later_logits_only(model: nn.Module) -> None:
    tokens, ids, labels = windows(1, 8)
    logits = model(tokens, ids, labels)
    tokens[:, 4] = (tokens[:, 4] + 1) % LAYOUT.absent
    ids[:, 4] += 1
    change = (model(tokens, ids, labels) - logits).abs()
    assert torch.equal(change[:, :4], torch.zeros(1, 4))
    assert (change[:, 4:] > 0).all()


def test_padding_and_other_windows_never_change_a_logit(model: nn.Module) -> None:
    together = model(*windows(3, 10))
    for window, length in enumerate((3, 7, 10)):
        alone = model(*(x[window : window + 1, :length] for x in windows(3, 10)))
        torch.testing.assert_close(together[window : window + 1, :length], alone, atol=1e-5, rtol=1e-5)


SEEN = torch.tensor([[0, 0, 2, 3, 3, 3, 6, 7, 7], [0, 1, 2, 2, 2, 2, 2, 7, 8]])  # two windows with items of one time


def test_a_label_reaches_items_of_a_later_time_only(model: nn.Module) -> None:
    tokens, ids, labels = windows(2, 9)
    logits = model(tokens, ids, labels, None, SEEN)
    for item in range(9):
        flipped = labels.clone()
        flipped[:, item] ^= 1
        change = (model(tokens, ids, flipped, None, SEEN) - logits).abs() > 0
        assert torch.equal(change, item < SEEN)


def test_items_of_one_time_have_no_order(model: nn.Module) -> None:
    inputs = windows(2, 9)
    order = torch.tensor([0, 1, 2, 5, 3, 4, 6, 7, 8])
    logits = model(*inputs, None, SEEN[:1].expand(2, 9))
    mixed = model(*(x[:, order] for x in inputs), None, SEEN[:1].expand(2, 9))
    torch.testing.assert_close(mixed, logits[:, order], atol=1e-5, rtol=1e-5)


def test_items_that_all_have_a_time_of_their_own_see_what_comes_before(model: nn.Module) -> None:
    inputs = windows(2, 9)
    plain = model(*inputs, None, torch.arange(9).expand(2, 9))
    torch.testing.assert_close(plain, model(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_graded_feedback_reaches_later_logits_as_standard_deviations(arch: str) -> None:
    config = RankerConfig.model_validate({"arch": arch, "dim": 16, "heads": 2, "feedback": True})
    model = build(config, LAYOUT).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens, ids, labels = windows(2, 9)
    graded = torch.rand(2, 9) * 100
    graded[0, 3] = torch.nan
    model.feedback.standardise(50.0, 20.0)
    logits = model(tokens, ids, labels, graded)
    other = graded.clone()
    other[:, 4] += 10
    change = (model(tokens, ids, labels, other) - logits).abs()
    assert torch.equal(change[:, :5], torch.zeros(2, 5))
    assert (change[:, 5:] > 0).all()
    model.feedback.standardise(0.0, 1.0)
    torch.testing.assert_close(model(tokens, ids, labels, (graded - 50) / 20), logits)
    mean = torch.where(graded.isnan(), 0.0, (graded - 50) / 20)
    torch.testing.assert_close(model(tokens, ids, labels, mean), logits)
    none = model(tokens, ids, labels)
    torch.testing.assert_close(none, model(tokens, ids, labels, torch.zeros(2, 9)))


def test_every_parameter_learns(model: nn.Module) -> None:
    model.train()(*windows(4, 6)).square().sum().backward()
    gradients = {name: parameter.grad.to_dense() for name, parameter in model.named_parameters()}
    idle = [name for name, gradient in gradients.items() if not (gradient.abs() > 0).any()]
    assert idle == []


@pytest.mark.parametrize("seen", [None, torch.arange(10).expand(3, 10) // 4 * 4], ids=["own times", "shared"])
@pytest.mark.parametrize("recompute", [1, 4, 100])
def test_what_is_computed_again_is_the_same(model: nn.Module, recompute: int, seen: Tensor | None) -> None:
    config = model.config.model_copy(update={"recompute": recompute})
    thrifty = made(config)
    thrifty.load_state_dict(model.state_dict())
    found = []
    for training in (model.train(), thrifty.train()):
        for part in training.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0  # drawn in another order
        torch.manual_seed(0)
        logits = training(*windows(3, 10), None, seen)
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in training.parameters())])
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(again, kept, atol=1e-4, rtol=1e-4)


def spread(known: str) -> nn.Module:
    """An untrained HMAT whose every part counts."""
    config = RankerConfig.model_validate({"dim": 16, "layers": 3, "heads": 2} | KNOWN[known])
    model = made(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("known", KNOWN)
def test_candidates_that_know_less_score_as_after_a_shorter_history(known: str) -> None:
    model = spread(known)
    tokens, ids, labels = windows(2, 9)
    knows = torch.tensor([[0, 0, 0, 3, 3, 3, 6, 6, 6], [0, 1, 2, 2, 2, 2, 6, 7, 7]])
    scored = model.score(model.remember(tokens, ids, labels, None, SEEN), tokens, ids, knows)
    for window, item in ((0, 5), (0, 8), (1, 2), (1, 5), (1, 8)):
        n = int(knows[window, item])
        past = (x[window : window + 1, :n] for x in (tokens, ids, labels))
        memory = model.remember(*past, None, SEEN[window : window + 1, :n])
        alone = model.score(memory, tokens[window, item][None, None], ids[window, item][None, None])
        torch.testing.assert_close(scored[window, item], alone[0, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("known", KNOWN)
def test_candidates_against_a_memory_score_as_the_full_pass(known: str) -> None:
    model = spread(known)
    history, candidates = windows(2, 9), windows(2, 5)
    memory = model.remember(*history)
    assert (memory.items, memory.nbytes) == (9, 3 * 2 * 2 * 10 * 16 * 4)  # layers, keys and values, B, M, E, bytes
    scored = model.score(memory, *candidates[:2])
    for candidate in range(5):
        pairs = zip(history, candidates, strict=True)
        whole = (torch.cat([past, new[:, candidate : candidate + 1]], 1) for past, new in pairs)
        torch.testing.assert_close(scored[:, candidate], model(*whole)[:, -1], atol=1e-5, rtol=1e-5)


def test_the_flat_last_layer_reads_what_a_whole_layer_would() -> None:
    config = RankerConfig(arch="flat", dim=16, layers=1, heads=2)
    model = build(config, LAYOUT).eval()
    stream, rotation = torch.randn(2, 20, 16), plain_rotation(20, 8, config.rope_base, CPU)
    read = torch.arange(3, 20, 5)
    (block,) = model.blocks
    torch.testing.assert_close(block(stream, rotation, read), block(stream, rotation)[:, read])


@pytest.mark.parametrize("arch", ARCHS)
def test_an_item_that_training_never_met_stands_on_its_decoded_vectors(arch: str) -> None:
    config = RankerConfig.model_validate({"arch": arch, "dim": 16, "heads": 2} | KNOWN["all"])
    tokens, ids, labels = windows(2, 9)
    met_I = ids[:, :8].flatten().sort().values  # the last item of each window is new
    model = build(config, LAYOUT, DECODED_CV, hash_I=met_I)
    model.items.identity.table.weight.data[: len(met_I)] = 1.0
    model.eval()(tokens, ids, labels)
    codes = model.items(tokens, ids)[0]
    met = (model.items.identity(ids) != 0).any(-1)
    assert met[:, :8].all()
    assert (codes[met] != 0).all()
    assert (codes[~met] == 0).all()


def test_decoded_vectors_must_be_those_of_the_codes() -> None:
    with pytest.raises(ValueError, match="not none"):
        build(RankerConfig(decoded=("text",)), LAYOUT)
    with pytest.raises(ValueError, match="28 codes, not 27 rows"):
        build(RankerConfig(decoded=("text",)), LAYOUT, DECODED_CV[1:])
    with pytest.raises(ValueError, match="0 codes, not 28 rows"):
        build(RankerConfig(), LAYOUT, DECODED_CV)


@pytest.mark.parametrize("name", ["free_dropout", "decoded_dropout"])
def test_dropout_around_decoded_vectors_needs_them(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} hides .*: set decoded, too"):
        RankerConfig.model_validate({name: 0.5})


def test_both_architectures_are_of_one_size() -> None:
    layout = Layout(3, 2, 2, 64)
    sizes = [sum(p.numel() for p in build(RankerConfig(arch=arch), layout).parameters()) for arch in ("hmat", "flat")]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[1]

"""Training of a tokenizer: what it reads, that it repeats itself, resumes, stops early, and runs on several workers."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from known_factors import BRIEF, IMAGE_DIM, TEXT_DIM, encode, known_factors, unexplained
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings, TokenizerError
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.baselines.rq_vae import RQVAE
from tokenizer.dst import objective
from tokenizer.dst.model import DST
from tokenizer.training import training
from tokenizer.training.fitting import fit
from tokenizer.training.training import Training

ITEMS, HELD_OUT = (known_factors(400)[0].select(part) for part in (slice(0, 300), slice(300, None)))
WATCHED = BRIEF.model_copy(update={"epochs": 6, "warmup": 0.34, "patience": 3})  # codebooks start after two epochs


def weights(model: Tokenizer) -> bytes:
    return save(model.state_dict())


def test_every_epoch_is_reported() -> None:
    seen: list[tuple[int, int, bool]] = []
    fit(ITEMS, BRIEF, on_epoch=lambda t: seen.append((t.epoch, t.epochs, t.means["rebuild"] > 0)))
    assert seen == [(1, 4, True), (2, 4, True), (3, 4, True), (4, 4, True)]
    seen.clear()
    longer = BRIEF.model_copy(update={"min_steps": 26})  # at 5 batches an epoch
    fit(ITEMS, longer, on_epoch=lambda t: seen.append((t.epoch, t.epochs, True)))
    assert len(seen) == 6


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_a_single_epoch_makes_a_tokenizer(method: str) -> None:
    model = fit(ITEMS, BRIEF.model_copy(update={"method": method, "epochs": 1, "batch_size": 8}))
    assert max(unexplained(model, HELD_OUT, ITEMS).values()) < 1


@pytest.mark.parametrize("method", ["dst", "rq_vae", "rq_kmeans"])
def test_same_seed_same_bytes_other_seed_others(method: str) -> None:
    config = BRIEF.model_copy(update={"method": method})
    assert weights(fit(ITEMS, config)) == weights(fit(ITEMS, config))
    if method != "rq_kmeans":
        assert weights(fit(ITEMS, config.model_copy(update={"seed": 1}))) != weights(fit(ITEMS, config))


@pytest.mark.parametrize("method", ["dst", "rq_vae", "rq_kmeans"])
@pytest.mark.parametrize("most", [150, 10_000])
def test_memory_mapped_half_precision_trains_the_same(method: str, most: int, tmp_path: Path) -> None:
    half, mapped = [], []
    for name, x_ND in (("text", ITEMS.text_ND), ("image", ITEMS.image_ND)):
        half.append(x_ND.half())
        half[-1].numpy().tofile(tmp_path / name)
        flat = torch.from_file(str(tmp_path / name), shared=True, size=x_ND.numel(), dtype=torch.float16)
        mapped.append(flat.view_as(x_ND))
    before = [(tmp_path / name).read_bytes() for name in ("text", "image")]
    config = BRIEF.model_copy(update={"method": method, "max_train_items": most})
    in_memory = fit(Embeddings(half[0].float(), half[1].float(), ITEMS.has_text_N, ITEMS.has_image_N), config)
    on_disk = fit(Embeddings(mapped[0], mapped[1], ITEMS.has_text_N, ITEMS.has_image_N), config)
    assert weights(on_disk) == weights(in_memory)
    assert [(tmp_path / name).read_bytes() for name in ("text", "image")] == before


def test_a_large_catalogue_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    whole_select = Embeddings.select

    def select(self: Embeddings, index: Tensor | slice) -> Embeddings:
        if isinstance(index, Tensor) and index.dtype == torch.int64:
            read.update(index.tolist())
        return whole_select(self, index)

    monkeypatch.setattr(Embeddings, "select", select)
    batches: list[int] = []
    fit(ITEMS, BRIEF.model_copy(update={"max_train_items": 100}), on_epoch=lambda t: batches.append(t.batches))
    assert len(read) == 100
    assert batches == [2] * 4


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_a_modality_that_few_items_have_is_learned_from_all_of_them(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where samples of the catalogue hold too few of its pictures for k-means, or none."""
    pictured_N = torch.arange(300) < 10
    few = Embeddings(ITEMS.text_ND, ITEMS.image_ND, torch.ones(300, dtype=torch.bool), pictured_N)
    config = BRIEF.model_copy(update={"method": method})
    monkeypatch.setattr(training, "KMEANS_ITEMS_PER_CODE", 2)
    monkeypatch.setattr(training, "SETTLED_ITEMS", 10)
    model = fit(few, config)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    pictures_ND = few.normalised().image_ND[:10]
    assert isinstance(model, DST | RQVAE)
    torch.testing.assert_close(model.standardiser("image").centre_D, pictures_ND.mean(dim=0))
    with pytest.raises(TokenizerError, match=r"^\d items with image cannot fill codebooks of 8 codes"):
        fit(few, config.model_copy(update={"max_train_items": 100}))


@cache
def watched(method: str) -> tuple[bytes, list[bytes]]:
    """The weights of a whole training and its state after every epoch."""
    states: list[bytes] = []
    config = WATCHED.model_copy(update={"method": method})
    model = fit(ITEMS, config, validation=HELD_OUT, on_epoch=lambda t: states.append(t.state()))
    assert len(states) > 4
    return weights(model), states


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
@pytest.mark.parametrize("epoch", [1, 2, 3, 5])
def test_resuming_ends_in_the_same_weights(method: str, epoch: int) -> None:
    whole, states = watched(method)
    later: list[int] = []
    config = WATCHED.model_copy(update={"method": method})
    resumed = fit(
        ITEMS,
        config,
        validation=HELD_OUT,
        resume=states[epoch - 1],
        on_epoch=lambda t: later.append(t.epoch),
    )
    assert later == list(range(epoch + 1, len(states) + 1))
    assert weights(resumed) == whole


def test_resuming_a_finished_training_gives_its_result() -> None:
    whole, states = watched("dst")
    assert weights(fit(ITEMS, WATCHED, validation=HELD_OUT, resume=states[-1])) == whole


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda state: b"",
    "no safetensors": lambda state: b"state" * 100,
    "cut off": lambda state: state[:-7],
    "no progress": lambda state: save(load(state)),
    "a header that is no JSON": lambda state: state[:8] + b"\xff" + state[9:],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_state_is_refused(how: str) -> None:
    with pytest.raises(TokenizerError, match=r"the checkpoint cannot be read .*; remove it to begin anew"):
        fit(ITEMS, WATCHED, resume=BROKEN[how](watched("dst")[1][2]))


def wider(items: Embeddings) -> Embeddings:
    return Embeddings(items.text_ND.repeat(1, 2), items.image_ND, items.has_text_N, items.has_image_N)


FOREIGN: dict[str, tuple[Embeddings, TokenizerConfig]] = {
    "other settings": (ITEMS, WATCHED.model_copy(update={"seed": 1})),
    "another method": (ITEMS, WATCHED.model_copy(update={"method": "rq_vae"})),
    "fewer items": (ITEMS.select(slice(0, 299)), WATCHED),
    "other items": (known_factors(300, seed=5)[0], WATCHED),
    "another encoder": (wider(ITEMS), WATCHED),
    "another modality": (ITEMS.select(ITEMS.has_text_N).only("text"), WATCHED),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_state_is_refused(what: str) -> None:
    items, config = FOREIGN[what]
    with pytest.raises(TokenizerError, match=r"the checkpoint is of another training .*; remove it to begin anew"):
        fit(items, config, resume=watched("dst")[1][2])


def test_a_state_of_another_program_is_refused() -> None:
    state = save(load(watched("dst")[1][2]), metadata={"progress": '{"epoch": 1}'})
    with pytest.raises(TokenizerError, match=r"the checkpoint is of another training .*; remove it"):
        fit(ITEMS, WATCHED, resume=state)


def test_a_state_with_other_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "PAIRS", objective.PAIRS[:2])
    with pytest.raises(TokenizerError, match=r"the checkpoint is of another training .*; remove it"):
        fit(ITEMS, WATCHED, resume=watched("dst")[1][2])


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_a_worker_may_get_nothing_of_a_small_batch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "rank_and_size", lambda: (14, 16))
    model = fit(ITEMS, BRIEF.model_copy(update={"method": method, "batch_size": 15}))
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def noise(count: int, seed: int) -> Embeddings:
    """Items of which nothing can be learnt that holds for others."""
    g, on = torch.Generator().manual_seed(seed), torch.ones(count, dtype=torch.bool)
    return Embeddings(torch.randn(count, TEXT_DIM, generator=g), torch.randn(count, IMAGE_DIM, generator=g), on, on)


@pytest.mark.parametrize("method", ["dst", "rq_vae"])
def test_training_stops_early_and_gives_back_its_best_epoch(method: str) -> None:
    config = BRIEF.model_copy(update={"method": method, "epochs": 60, "warmup": 0.05, "patience": 4})
    losses: list[float] = []
    states: list[bytes] = []

    def note(t: Training) -> None:
        losses.append(t.means.get("validation", float("inf")))
        states.append(t.state())

    model = fit(noise(200, 0), config, validation=noise(100, 1), on_epoch=note)
    best = losses.index(min(losses))
    assert losses[:3] == [float("inf")] * 3  # nothing to watch before there are codebooks
    assert len(losses) == best + 1 + 4 < 60
    kept = load(states[best])
    for name, tensor in model.state_dict().items():
        if ".expected." not in name:  # these are settled once more at the end
            assert torch.equal(tensor, kept[f"model/{name}"]), name


def test_without_held_out_items_nothing_stops_early() -> None:
    config = BRIEF.model_copy(update={"patience": 1, "epochs": 8})
    patient = weights(fit(ITEMS, config, validation=HELD_OUT.select(slice(0, 0))))
    assert patient == weights(fit(ITEMS, config))
    with pytest.raises(TokenizerError, match="item 0 has neither"):
        fit(ITEMS, config, validation=Embeddings(*map(torch.zeros_like, vars(HELD_OUT).values())))


def test_held_out_items_are_watched_without_a_modality_that_training_has_not() -> None:
    texts = ITEMS.select(ITEMS.has_text_N).only("text")
    readable = HELD_OUT.select(HELD_OUT.has_text_N).only("text")
    assert len(readable) < len(HELD_OUT)
    losses: list[list[float]] = [[], []]
    for watched, found in zip((HELD_OUT, readable), losses, strict=True):
        fit(
            texts,
            WATCHED,
            validation=watched,
            on_epoch=lambda t, found=found: found.append(t.means.get("validation", 0.0)),
        )
    assert losses[0] == losses[1]
    fit(texts, WATCHED, validation=HELD_OUT.select(~HELD_OUT.has_text_N))  # nothing to watch


def test_bfloat16_trains_as_well_and_codes_stay_exact() -> None:
    config = BRIEF.model_copy(update={"epochs": 12, "precision": "float32"})
    half = fit(ITEMS, config.model_copy(update={"precision": "bfloat16"}))
    full = fit(ITEMS, config)
    assert {t.dtype for t in half.state_dict().values()} == {t.dtype for t in full.state_dict().values()}
    assert weights(half) != weights(full)
    expected = unexplained(full, HELD_OUT, ITEMS)
    for m, share in unexplained(half, HELD_OUT, ITEMS).items():
        assert share == pytest.approx(expected[m], rel=0.1)
    codes = encode(half, HELD_OUT)
    assert torch.equal(codes, encode(half, HELD_OUT.to("cpu", torch.float64)))
    assert torch.equal(codes, torch.cat([encode(half, HELD_OUT.select(slice(i, i + 1))) for i in range(100)]))


def trained_and_resumed(items: Embeddings, config: TokenizerConfig) -> Tokenizer:
    states: list[bytes] = []
    model = fit(items, config, validation=HELD_OUT, on_epoch=lambda t: states.append(t.state()))
    assert weights(fit(items, config, validation=HELD_OUT, resume=states[3])) == weights(model)
    return model


def shared_work(rank: int, folder: str) -> None:
    """One of two workers that train the cases of :func:`test_two_workers_agree_bit_for_bit` together."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    few_images = Embeddings(
        ITEMS.text_ND, ITEMS.image_ND, torch.ones_like(ITEMS.has_text_N), torch.arange(300) % 37 == 0
    )
    for case, method, items in (("balanced", "dst", ITEMS), ("few", "dst", few_images), ("few", "rq_vae", few_images)):
        model = trained_and_resumed(items, WATCHED.model_copy(update={"method": method, "workers": 2}))
        save_file(model.state_dict(), f"{folder}/{case} images, {method} {rank}")
    dist.barrier()  # whoever leaves first would cut the other one off
    dist.destroy_process_group()


def test_two_workers_agree_bit_for_bit(tmp_path: Path) -> None:
    spawn(shared_work, (str(tmp_path),), nprocs=2)
    cases = sorted({path.name[:-2] for path in tmp_path.glob("* ?")})
    assert len(cases) == 3
    for case in cases:
        first, second = (load_file(tmp_path / f"{case} {rank}") for rank in (0, 1))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items()), case
        assert all(torch.isfinite(tensor).all() for tensor in first.values()), case

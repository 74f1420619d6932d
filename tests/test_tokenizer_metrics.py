"""The tokenizer's measures against slow plain references, at their ends, and how they are shown."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.tables import show_tokenizer
from tokenizer.config import TokenizerConfig
from tokenizer.consensus import Pairs, consensus, encode, known_bits, pairs
from tokenizer.embeddings import Embeddings, TokenizerError
from tokenizer.interface import Tokenizer
from tokenizer.metrics import evaluate, fidelity, neighbour_overlap, shared_information, survey
from tokenizer.training import fit

CONFIG = TokenizerConfig(
    shared_levels=2,
    text_levels=1,
    image_levels=1,
    codebook_size=16,
    dim=16,
    hidden=32,
    epochs=1,
    min_steps=150,
    batch_size=128,
)
TRAIN, CLASSES = 1200, 16


def catalogue(count: int = 1600, independent: bool = False) -> Embeddings:
    """Text and image tell the same one of 16 classes (4 bits), unless independent, and one of 8 each of their own."""
    g = torch.Generator().manual_seed(0)
    shared = torch.randint(CLASSES, (count,), generator=g)

    def mixed(width: int, class_N: torch.Tensor) -> torch.Tensor:
        own = torch.randint(8, (count,), generator=g)
        points = torch.cat(
            [torch.randn(CLASSES, 8, generator=g)[class_N], torch.randn(8, 8, generator=g)[own]], dim=1
        ) @ torch.randn(16, width, generator=g)
        return points + 0.5 * torch.randn(count, width, generator=g)

    text, image = mixed(24, shared), mixed(20, torch.randint(CLASSES, (count,), generator=g) if independent else shared)
    has_text = torch.rand(count, generator=g) > 0.05
    return Embeddings(text, image, has_text, (torch.rand(count, generator=g) > 0.1) | ~has_text)


def parts(items: Embeddings) -> tuple[Embeddings, Embeddings]:
    return items.select(slice(0, TRAIN)), items.select(slice(TRAIN, None))


@cache
def trained(independent: bool = False) -> Tokenizer:
    return fit(parts(catalogue(independent=independent))[0], CONFIG)


@cache
def baseline(method: str) -> Tokenizer:
    return fit(parts(catalogue())[0], CONFIG.model_copy(update={"method": method, "codebook_size": 8}))


def test_the_whole_catalogue_is_surveyed_across_blocks():
    model, items = trained(), catalogue(2600)
    again = items.select(torch.cat([torch.arange(2600), torch.arange(100), torch.arange(1500)]))  # more than a block
    found = survey(model, [again.select(slice(0, 4150)), again.select(slice(4150, None))])
    codes = encode(model, again)
    assert found["items"] == len(again) == 4200
    for level, slot in zip(found["levels"], range(4), strict=True):
        counts = Counter(codes[:, slot].tolist())
        del counts[model.layout.absent]
        shares = np.array(list(counts.values())) / sum(counts.values())
        assert level["slot"] == model.layout.slot_names()[slot]
        assert level["used"] == len(counts) == level["used_share"] * 16
        assert level["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found["collisions"]["rate"] == pytest.approx(1 - len({tuple(row) for row in codes.tolist()}) / 4200)
    assert found["collisions"]["from_identical_content"] == pytest.approx(1600 / 4200)


def test_identical_content_ignores_what_stands_in_absent_rows_but_not_which_are_absent():
    model, items = trained(), catalogue()
    text, on = items.text_ND[:1].repeat(4, 1), torch.ones(4, dtype=torch.bool)
    text_only = Embeddings(text, items.image_ND[:4], on, ~on)
    assert evaluate(model, text_only)["collisions"] == {"rate": 0.75, "from_identical_content": 0.75}
    half = Embeddings(text, torch.ones(4, 20), on, torch.tensor([True, False, True, False]))
    assert evaluate(model, half)["collisions"]["from_identical_content"] == 0.5


def test_memory_mapped_halves_give_the_figures_of_floats_in_memory(tmp_path: Path):
    model, items = trained(), catalogue()
    halves = items.to("cpu", torch.float16)
    mapped = []
    for name, x in (("text", halves.text_ND), ("image", halves.image_ND)):
        np.save(tmp_path / f"{name}.npy", x.numpy())
        mapped.append(torch.from_numpy(np.load(tmp_path / f"{name}.npy", mmap_mode="r+")))
    on_disk = Embeddings(*mapped, items.has_text_N, items.has_image_N)
    assert on_disk.text_ND.dtype == torch.float16
    assert evaluate(model, *parts(on_disk)) == evaluate(model, *parts(halves.to("cpu")))


def test_reconstruction_matches_a_plain_loop():
    model, items = trained(), catalogue(40)
    found, unit = fidelity(model, items), items.normalised()
    for m, x in zip(("text", "image"), model.decode(encode(model, items)), strict=True):
        rows = items.present(m).nonzero()[:, 0].tolist()
        cosines = [float(torch.cosine_similarity(unit.vectors(m)[i], x[i], dim=0)) for i in rows]
        assert found["reconstruction"][m] == pytest.approx(np.mean(cosines), abs=1e-5)
        assert found["neighbour_overlap"][m] == neighbour_overlap(unit.vectors(m)[rows], x[rows])
    assert found["items"] == 40
    assert 0 < found["neighbour_overlap"]["joint"] < 1
    assert fidelity(model, items, 15)["items"] == 15


def test_neighbour_overlap_matches_a_plain_loop():
    before, after = torch.randn(2, 25, 6, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity

    def nearest(x: torch.Tensor, i: int) -> set[int]:
        return set(sorted(set(range(25)) - {i}, key=lambda j: -float(cosine(x[i], x[j], dim=0)))[:4])

    kept = [len(nearest(before, i) & nearest(after, i)) / 4 for i in range(25)]
    assert neighbour_overlap(before, after, k=4) == pytest.approx(np.mean(kept))


def test_neighbour_overlap_knows_its_ends():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=g)
    assert neighbour_overlap(x, 2 * x) == 1
    assert neighbour_overlap(x, torch.randn(200, 6, generator=g)) < 0.15  # chance is 10 of 199
    assert neighbour_overlap(x[:10], x[:10]) is None


@pytest.mark.parametrize(("codes", "count"), [(8, 100), (256, 2000), (1000, 5000)])
def test_shared_information_knows_its_ends_though_most_cells_are_empty(codes: int, count: int):
    rng = np.random.default_rng(0)
    a, b = rng.integers(codes, size=(2, count))
    assert shared_information(a, a) == pytest.approx(1)
    assert shared_information(a, rng.permutation(codes)[a]) == pytest.approx(1)
    assert abs(shared_information(a, b)) < 0.03
    assert 0.2 < shared_information(a, np.where(rng.random(count) < 0.7, a, b)) < 0.8


def test_shared_information_is_silent_where_chance_explains_all():
    rng = np.random.default_rng(0)
    a = rng.integers(5000, size=50)
    assert shared_information(a, a) is None
    assert shared_information(np.zeros(50), a % 2) is None


def test_agreement_and_explained_variance_match_plain_loops():
    model, items = trained(), catalogue(120)
    both = items.select(items.has_both_N)
    whole, alone = encode(model, both), {m: encode(model, both.only(m)) for m in ("text", "image")}
    found = pairs(model, items, items.has_both_N.nonzero()[:, 0])
    judged = consensus(found, model.layout)
    for m, other in (("text", "image"), ("image", "text")):
        for length in (1, 2):
            same = [a[:length].tolist() == b[:length].tolist() for a, b in zip(alone[m], whole, strict=True)]
            assert found.kept()[f"{m}_alone"][length - 1] == pytest.approx(np.mean(same))
        predicted, x = model.decode(alone[other])[("text", "image").index(m)], both.normalised().vectors(m)
        unexplained = (predicted - x).square().sum() / (x - x.mean(dim=0)).square().sum()
        assert judged["explained"][m] == pytest.approx(1 - float(unexplained), abs=1e-4)
    for length, level in enumerate(judged["levels"], start=1):
        text, image = ([tuple(row[:length].tolist()) for row in alone[m]] for m in ("text", "image"))
        assert level["agreement"] == pytest.approx(np.mean([a == b for a, b in zip(text, image, strict=True)]))
        assert level["chance"] == pytest.approx(np.mean([a == b for a in text for b in image]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 25), codes=st.integers(2, 6), levels=st.integers(0, 2))
def test_known_bits_match_a_plain_loop(seed: int, count: int, codes: int, levels: int):
    rng = np.random.default_rng(seed)
    cue, code = rng.integers(codes, size=(2, count))
    context, scored = rng.integers(2, size=(count, levels)), rng.random(count) < 0.7
    scored[0] = True
    weights = [4.0**n for n in range(-3, 11)]
    chosen = [i for i in range(count) if scored[i]]

    def best(given: list[tuple[int, ...]], prior: list[float]) -> list[float]:
        options = []
        for weight in weights:
            expected = []
            for i in range(count):
                others = [j for j in range(count) if j != i and given[j] == given[i]]
                hits = sum(code[j] == code[i] for j in others)
                expected.append((hits + weight * prior[i]) / (len(others) + weight))
            options.append(expected)
        return max(options, key=lambda p: np.mean([np.log2(p[i]) for i in chosen]))

    prefixes = [tuple(row) for row in context.tolist()]
    without = best(prefixes, best([()] * count, [1 / codes] * count))
    share = np.mean([cue[i] == code[i] for i in chosen])
    told = []
    for trust in (0, share / 2, share):
        prior = [(1 - trust) * without[i] + trust * (cue[i] == code[i]) for i in range(count)]
        p = best([(*prefixes[i], cue[i]) for i in range(count)], prior)
        told.append(np.mean([np.log2(p[i] / without[i]) for i in chosen]))
    assert known_bits(cue, code, context, scored, codes) == pytest.approx(max(0, *told), abs=1e-9)


def bits(cue: np.ndarray, code: np.ndarray, codes: int) -> float:
    return known_bits(cue, code, np.zeros((len(cue), 0), dtype=np.int64), np.ones(len(cue), dtype=bool), codes)


def test_known_bits_know_their_ends_and_the_middle():
    rng = np.random.default_rng(0)
    a, b = rng.integers(256, size=(2, 3000))
    assert bits(a, a, 256) == pytest.approx(8, abs=0.05)
    assert bits(a, b, 256) == pytest.approx(0, abs=0.02)
    half = np.where(rng.random(3000) < 0.5, a, b)
    joint = 0.5 / 256 + 0.5 / 256**2  # on the diagonal
    assert bits(a, half, 256) == pytest.approx(
        256 * joint * np.log2(joint * 256**2) + (1 - 256 * joint) * np.log2(0.5), abs=0.15
    )
    group = rng.integers(16, size=3000)  # which both know, while which of its 4 codes is a matter of chance
    a, b = (4 * group + rng.integers(4, size=3000) for _ in range(2))
    assert bits(a, b, 64) == pytest.approx(4, abs=0.15)
    few = [bits(*rng.integers(8, size=(2, 30)), 8) for _ in range(50)]
    assert np.mean(few) < 0.1


def test_other_pairs_sharpen_but_do_not_stand_in_for_the_measured_ones():
    rng, layout = np.random.default_rng(0), TokenizerConfig(shared_levels=1, codebook_size=64).layout()

    def drawn(count: int, agreeing: bool) -> Pairs:
        group = rng.integers(16, size=(2, count, 1))
        text, image = (4 * group[i] + rng.integers(4, size=(count, 1)) for i in (0, 0 if agreeing else 1))
        return Pairs(text, {"text": text, "image": image}, {})

    few, many = drawn(200, agreeing=True), drawn(5000, agreeing=True)
    assert 1 < consensus(few, layout)["bits"] < 3.5 < consensus(few, layout, many)["bits"] < 4.3
    assert consensus(drawn(200, agreeing=False), layout, many)["bits"] < 0.1


def test_consensus_counts_bits_once_and_only_while_both_agree():
    rng, layout = np.random.default_rng(0), TokenizerConfig(shared_levels=3, codebook_size=8).layout()
    first, second = rng.integers(8, size=(2, 4000))
    text = np.stack([first, second, first], axis=1)  # the third level tells nothing new
    image = text.copy()
    lost = rng.random(4000) < 0.5
    image[lost, 1] = rng.integers(8, size=lost.sum())
    found = consensus(Pairs(text, {"text": text, "image": image}, {}), layout)
    assert [level["slot"] for level in found["levels"]] == ["shared_0", "shared_1", "shared_2"]
    assert [level["agreement"] for level in found["levels"]] == pytest.approx([1, 9 / 16, 9 / 16], abs=0.03)
    assert [level["chance"] for level in found["levels"]] == pytest.approx([1 / 8, 1 / 64, 1 / 64], abs=0.005)
    told = [level["bits"] for level in found["levels"]]
    assert told[0] == pytest.approx(3, abs=0.05)
    assert told[1] == pytest.approx(9 / 16 * np.log2(9 / 2) - 7 / 16, abs=0.08)
    assert told[2] == pytest.approx(0, abs=0.05)
    assert found["bits"] == sum(told)
    assert found["levels_worth_sharing"] == 2


def test_a_trained_tokenizer_shows_what_both_modalities_know():
    found = evaluate(trained(), *parts(catalogue()))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for part in ("train", "held_out"):
        common = found[part]["consensus"]
        assert 3 < common["bits"] < 4.6, common  # 16 classes
        assert 1 <= common["levels_worth_sharing"] <= 2
        assert common["levels"][0]["agreement"] > 5 * common["levels"][0]["chance"]
        assert 0.2 < min(common["explained"].values()) < 1
        kept = found[part]["codes_kept"]["text_alone"]
        assert found[part]["first_code_kept"]["text_alone"] == kept[0] >= kept[1]
        assert 0.5 < found[part]["reconstruction"]["image"] <= 1
    assert all(-0.1 < share < 0.7 for share in found["information"].values())
    assert found["train"]["items"] == found["held_out"]["items"] == 400


def test_independent_modalities_have_no_consensus():
    found = evaluate(trained(independent=True), *parts(catalogue(independent=True)))["held_out"]["consensus"]
    assert found["bits"] < 0.1, found
    assert found["levels_worth_sharing"] == 0
    assert max(found["explained"].values()) < 0.1


def test_one_modality_absent_or_few_items_leave_gaps_and_no_error():
    model, items = trained(), catalogue()
    with_text = items.select(items.has_text_N)
    text_only = evaluate(model, with_text.only("text"))
    assert text_only["train"]["reconstruction"]["image"] is None
    assert text_only["train"]["consensus"] is text_only["train"]["codes_kept"] is None
    assert text_only["information"]["shared_image"] is None
    assert text_only["levels"][-1] == {"slot": "image_0", "used": 0, "used_share": 0.0, "perplexity": 0.0}
    assert "held_out" not in text_only
    assert "held_out" not in evaluate(model, items.select(slice(0, 20)), items.select(slice(0, 0)))
    for count in (1, 2, 11):
        few = evaluate(model, items.select(slice(0, count)), items.select(slice(0, 1)))
        assert json.loads(json.dumps(few, allow_nan=False)) == few
    with pytest.raises(TokenizerError, match="no items"):
        evaluate(model, items.select(slice(0, 0)))


@pytest.mark.parametrize("method", ["rq_kmeans", "rq_vae"])
def test_a_baseline_has_shared_levels_alone(method: str):
    found = evaluate(baseline(method), *parts(catalogue()))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["information"] == {"shared_text": None, "shared_image": None, "text_image": None}
    assert [level["slot"] for level in found["levels"]] == ["shared_0", "shared_1", "shared_2", "shared_3"]
    assert len(found["held_out"]["codes_kept"]["text_alone"]) == len(found["held_out"]["consensus"]["levels"]) == 4
    assert found["held_out"]["reconstruction"]["text"] > 0.5


def test_tables_are_readable_without_a_terminal(capsys: pytest.CaptureFixture[str]):
    found = evaluate(trained(), *parts(catalogue()))
    show_tokenizer(found)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    (row,) = (line for line in shown.splitlines() if "shared_1" in line)
    kept = found["held_out"]["codes_kept"]
    assert f"{kept['text_alone'][1]:.0%}" in row
    assert f"{kept['image_alone'][1]:.0%}" in row
    (row,) = (line for line in shown.splitlines() if "text rebuilt" in line)
    cells = [f"{found[part]['reconstruction']['text']:.4f}" for part in ("held_out", "train")]
    assert row.index(cells[0]) < row.rindex(cells[1])
    assert "levels worth sharing" in shown
    for gaps in (
        evaluate(trained(), catalogue(30).select(slice(0, 1))),
        evaluate(baseline("rq_kmeans"), catalogue(50)),
    ):
        show_tokenizer(gaps)
    assert "–" in capsys.readouterr().out

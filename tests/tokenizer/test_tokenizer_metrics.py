"""The tokenizer's measures against slow plain references, at their ends, and how they are shown."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.tables import show_tokenizer
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings, TokenizerError
from tokenizer.base.tokenizer import Encoder, Tokenizer
from tokenizer.quality.consensus import consensus, encode, pairs
from tokenizer.quality.generalisation import generalisation
from tokenizer.quality.metrics import evaluate, fidelity, neighbour_overlap, shared_information, survey
from tokenizer.training.fitting import fit

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


def test_the_tokenizer_is_copied_once_for_all_blocks(monkeypatch: pytest.MonkeyPatch):
    model, items, made, init = trained(), catalogue(4200), [], Encoder.__init__

    def counted(encoder: Encoder, tokenizer: Tokenizer) -> None:
        made.append(encoder)
        init(encoder, tokenizer)

    monkeypatch.setattr(Encoder, "__init__", counted)
    survey(model, [items, items.select(slice(0, 10))])
    assert len(made) == 1
    pairs(model, items, items.has_both_N.nonzero()[:, 0].repeat(2))
    assert len(made) == 2


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


def test_a_tokenizer_that_learned_its_items_by_heart_is_told_from_one_that_generalises():
    known, new = parts(catalogue())
    found = generalisation(trained(), known, new)
    assert found == evaluate(trained(), known, new)["generalisation"]
    kept = dict.fromkeys(("train", "held_out"), 0.0)
    for name, items in (("train", known.normalised()), ("held_out", new.normalised())):
        for m, decoded in zip(("text", "image"), trained().decode(encode(trained(), items)), strict=True):
            mean = known.normalised().vectors(m)[known.present(m)].mean(dim=0)
            rows = [(x, y) for x, y, has in zip(items.vectors(m), decoded, items.present(m), strict=True) if has]
            missed, spread = (
                sum(float((x - z).square().sum()) for x, z in to) for to in (rows, [(x, mean) for x, _ in rows])
            )
            kept[name] += (1 - missed / spread) / 2
    assert found == pytest.approx({"items": 400, **kept, "share": kept["held_out"] / kept["train"]}, rel=1e-4)
    assert found["share"] > 0.95
    few, briefly = known.select(slice(0, 40)), CONFIG.model_copy(update={"dropout": 0.0, "min_steps": 60})
    by_heart = generalisation(fit(few, briefly), few, new)
    assert by_heart["share"] < 0.75
    assert generalisation(trained(), known, new.select(slice(0, 49))) is generalisation(trained(), known, None) is None


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

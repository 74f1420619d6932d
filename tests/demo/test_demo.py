import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score

from pipeline.demo.generator import FLAWS, generate, mutate
from pipeline.demo.pictures import FINISHES, draw
from pipeline.demo.texts import MAKES, write
from pipeline.demo.users import interact
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor

ITEMS, USERS = 120, 30


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    generate(folder, ITEMS, USERS, seed=1)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decodes(path: Path) -> bool:
    try:
        Image.open(path).load()
    except OSError:
        return False
    return True


def test_the_same_seed_gives_the_same_bytes(catalogue, tmp_path):
    generate(tmp_path / "same", ITEMS, USERS, seed=1)
    assert digests(tmp_path / "same") == digests(catalogue)
    generate(tmp_path / "same", 40, 5, seed=2)  # over the old one, nothing of which may remain
    generate(tmp_path / "fresh", 40, 5, seed=2)
    assert digests(tmp_path / "same") == digests(tmp_path / "fresh")


def test_flaws_are_where_the_truth_says(catalogue):
    rows = {row["id"]: row for row in table(catalogue / "items.csv")}
    truth = table(catalogue / "factors.csv")
    assert len(rows) == len(truth) == ITEMS
    count = Counter(true["flaw"] for true in truth)
    expected = {flaw: n if isinstance(n, int) else max(1, round(n * ITEMS)) for flaw, n in FLAWS.items()}
    assert {flaw: n for flaw, n in count.items() if flaw} == expected
    for true in truth:
        row, flaw = rows[true["id"]], true["flaw"]
        assert bool(row["title"]) == (flaw != "empty")
        assert bool(row["description"]) == (flaw not in ("empty", "title_only"))
        assert bool(row["image"]) == (flaw not in ("empty", "no_image"))
        if row["image"]:
            picture = catalogue / "images" / row["image"]
            assert picture.exists() == (flaw != "missing_file")
            assert decodes(picture) == (flaw not in ("missing_file", "corrupt_image"))
        if flaw == "duplicate":
            source = rows[true["duplicate_of"]]
            assert (row["title"], row["description"]) == (source["title"], source["description"])
            pictures = [catalogue / "images" / name for name in (row["image"], source["image"])]
            assert pictures[0].read_bytes() == pictures[1].read_bytes()
    named = {row["image"] for row in rows.values()}
    assert {path.name for path in (catalogue / "images").iterdir()} < named


def test_configuration_names_what_is_there(catalogue):
    configuration = yaml.safe_load((catalogue / "config.yaml").read_text())
    items, interactions = table(catalogue / "items.csv"), table(catalogue / "interactions.csv")
    text = configuration["catalog"]["text"].format(**items[0])
    assert items[0]["title"] in text
    assert configuration["catalog"]["image"]["column"] in items[0]
    assert {configuration["interactions"]["user"], configuration["interactions"]["item"]} < set(interactions[0])
    assert configuration["tokenizer"]["codebook_size"] == 16
    assert {row["item"] for row in interactions} <= {row["id"] for row in items}


def test_clicks_follow_every_factor_and_cold_items_appear():
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, count, 2000) for count in (64, MAKES, FINISHES)], axis=1)
    shown = interact(factors, 500, seed=0)
    assert (np.diff(shown.time) >= 0).all()
    assert len({*zip(shown.user.tolist(), shown.item.tolist(), strict=True)}) == len(shown.item)
    assert 55 < len(shown.item) / 500 < 65
    assert 0.4 < shown.clicked.mean() < 0.5
    assert 0.80 < roc_auc_score(shown.clicked, shown.chance) < 0.85
    last = shown.time > np.quantile(shown.time, 0.9)
    assert 0.03 < (~np.isin(shown.item[last], shown.item[~last])).mean() < 0.2
    logit = np.log(shown.chance / (1 - shown.chance))
    for column in range(3):
        codes = factors[shown.item, column]
        sizes = np.bincount(codes)
        means = np.bincount(codes, logit) / np.maximum(sizes, 1)
        assert np.var(means[codes]) / np.var(logit) > 0.05


def test_texts_and_pictures_tell_their_own_factors_alone():
    """Linear probes on the built-in vectors: each factor is found where it should be and nowhere else."""
    rng = np.random.default_rng(5)
    items, half = 500, 300
    category, make, look = rng.integers(0, (16, MAKES, 8), (items, 3)).T
    shared, finish = category * 4 + rng.integers(0, 4, items), look * 4 + rng.integers(0, 4, items)
    texts = [" ".join(write(int(s), int(m), rng)) for s, m in zip(shared, make, strict=True)]
    pictures = [draw(int(s), int(f), rng) for s, f in zip(shared, finish, strict=True)]

    def told(vectors, codes):
        return RidgeClassifier(0.1).fit(vectors[:half], codes[:half]).score(vectors[half:], codes[half:])

    text, image = TextDescriptor()(texts), ImageDescriptor()(pictures)
    assert min(told(text, category), told(text, make)) > 0.9
    assert told(text, look) < 0.25  # chance: 1/8
    assert min(told(image, category), told(image, look)) > 0.7
    assert told(image, make) < 0.12  # chance: 1/24


def test_mutation_changes_exactly_what_it_reports(tmp_path):
    generate(tmp_path, ITEMS, USERS, seed=3)
    before, files = {row["id"]: row for row in table(tmp_path / "items.csv")}, digests(tmp_path)
    changed = mutate(tmp_path, 0.1, seed=0)
    after, new_files = {row["id"]: row for row in table(tmp_path / "items.csv")}, digests(tmp_path)
    assert {kind: len(ids) for kind, ids in changed.items()} == dict.fromkeys(
        ("text_edited", "image_edited", "new", "deleted"), 3
    )
    assert set(after) - set(before) == set(changed["new"])
    assert set(before) - set(after) == set(changed["deleted"])
    kept = set(before) & set(after)
    assert {id_ for id_ in kept if before[id_] != after[id_]} == set(changed["text_edited"])

    def redrawn(id_):
        name = f"images/{after[id_]['image']}"
        return files.get(name) != new_files.get(name)

    assert {id_ for id_ in kept if redrawn(id_)} == set(changed["image_edited"])
    assert all(decodes(tmp_path / "images" / after[id_]["image"]) for id_ in changed["new"])
    assert new_files["interactions.csv"] == files["interactions.csv"]
    again = mutate(tmp_path, 0.1, seed=1)
    assert not set(again["new"]) & (set(before) | set(after))  # an id is never used twice


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_mutation_refuses_a_fraction_outside_its_range(tmp_path, fraction):
    with pytest.raises(ValueError, match="within"):
        mutate(tmp_path, fraction, seed=0)


def test_generation_refuses_too_small_a_catalogue(tmp_path):
    with pytest.raises(ValueError, match="at least 20 items"):
        generate(tmp_path, 5, 5, seed=0)

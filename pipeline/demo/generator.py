"""A generated catalogue with a known truth: pictures, texts and clicks that follow latent factors.

Every item has three independent factors. The *shared* one (64 kinds of product: 16 categories of 4 styles) shows in the
drawing and in the words; the *text-only* one (24 makes: material, line and brand) in the words alone; the *image-only*
one (32 finishes: colour, pattern, background) in the picture alone. Shoppers' clicks follow all three.
``factors.csv`` holds the truth that codes, embeddings and rankers can be measured against.

What can be reached: at 2,000 items and 500 users (seeds 0 to 4) the ideal observer, who knows every chance of a
click, has an AUC of 0.82 to 0.84, overall and on the last tenth by time; 44 to 47 % of the impressions are
clicked, and 6 to 8 % of the last tenth's show an item that was never shown before.
"""

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.demo.pictures import DRAWINGS, FINISHES, STYLES, draw
from pipeline.demo.texts import MAKES, write
from pipeline.demo.users import interact

SHARED = len(DRAWINGS) * STYLES
FLAWS = {  # a share of the items (at least one), or a number
    "no_image": 0.03,
    "title_only": 0.01,
    "duplicate": 0.01,  # text and picture of another item, named in duplicate_of
    "corrupt_image": 2,
    "missing_file": 1,
    "empty": 1,  # neither text nor picture
}
MIN_ITEMS = 20

_TEXT_COLUMNS = ("title", "brand", "category", "description")
_ITEM_COLUMNS = ("id", *_TEXT_COLUMNS, "image")
_FACTOR_COLUMNS = ("id", "shared", "text_only", "image_only", "flaw", "duplicate_of")

Row = dict[str, Any]


def generate(folder: Path, items: int, users: int, seed: int) -> None:
    """Write ``items.csv``, ``images/``, ``interactions.csv``, ``factors.csv`` and ``config.yaml`` into ``folder``.

    The same arguments give the same files, byte for byte, under the same versions of NumPy and Pillow.
    ``factors.csv`` also names each item's flaw (a key of ``FLAWS``, or nothing), so they can be counted there.

    Args:
        folder: made if it is not there; files of these names, and all of ``images/``, are replaced.
        items: at least 20.
        users: at least 1.
        seed: of every random choice.

    Raises:
        ValueError: too few items or users.
    """
    if items < MIN_ITEMS or users < 1:
        raise ValueError(f"a demo needs at least {MIN_ITEMS} items and 1 user, not {items} and {users}")
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    truth = _truth(items, np.random.default_rng([seed, 0]))
    rows = {true["id"]: _item(folder, true, np.random.default_rng([seed, 1, i])) for i, true in enumerate(truth)}
    for true in truth:
        _blemish(folder, rows, true)
    _write_csv(folder / "items.csv", _ITEM_COLUMNS, rows.values())
    _write_csv(folder / "factors.csv", _FACTOR_COLUMNS, truth)
    factors = np.array([[true["shared"], true["text_only"], true["image_only"]] for true in truth])
    shown = interact(factors, users, seed)
    columns = (shown.user.tolist(), shown.item.tolist(), shown.clicked.tolist(), shown.time.tolist())
    interactions = (
        {"user": f"u{user:05d}", "item": _id(item), "clicked": clicked, "time": time}
        for user, item, clicked, time in zip(*columns, strict=True)
    )
    _write_csv(folder / "interactions.csv", ("user", "item", "clicked", "time"), interactions)
    (folder / "config.yaml").write_text(yaml.safe_dump(_configuration(items), sort_keys=False), encoding="utf-8")


def mutate(folder: Path, fraction: float, seed: int) -> dict[str, list[str]]:
    """Change a fraction of a generated catalogue as a day would: edited texts, edited pictures, new and deleted items.

    Each kind is a quarter of the fraction, at least one item. ``items.csv``, ``factors.csv`` and the pictures are
    rewritten; interactions stay. An edit changes the text-only or the image-only factor. Flawed and duplicated
    items stay as they are. Deleted items keep their row in ``factors.csv``, with the flaw ``deleted``.

    Returns:
        The ids by kind, ``text_edited``, ``image_edited``, ``new`` and ``deleted``; no id is of two kinds.

    Raises:
        ValueError: the fraction is not within (0, 1], or there are not enough sound items.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} is not within (0, 1]")
    rows = {row["id"]: row for row in _read_csv(folder / "items.csv")}
    truth = {true["id"]: true for true in _read_csv(folder / "factors.csv")}
    rng = np.random.default_rng([seed, 3])
    each = max(1, round(fraction * len(rows) / 4))
    copied = {true["duplicate_of"] for true in truth.values()}
    sound = [id_ for id_, true in truth.items() if not true["flaw"] and id_ not in copied]
    if 3 * each > len(sound):
        raise ValueError(f"{3 * each} sound items to change, but there are {len(sound)}; lower the fraction")
    chosen = [sound[i] for i in rng.permutation(len(sound))[: 3 * each]]
    text_edited, image_edited, deleted = chosen[:each], chosen[each : 2 * each], chosen[2 * each :]
    for id_ in text_edited:
        truth[id_]["text_only"] = (truth[id_]["text_only"] + int(rng.integers(1, MAKES))) % MAKES
        rows[id_] |= write(truth[id_]["shared"], truth[id_]["text_only"], rng)._asdict()
    for id_ in image_edited:
        truth[id_]["image_only"] = (truth[id_]["image_only"] + int(rng.integers(1, FINISHES))) % FINISHES
        _save_picture(folder / "images" / rows[id_]["image"], truth[id_], rng)
    for id_ in deleted:
        (folder / "images" / rows.pop(id_)["image"]).unlink()
        truth[id_]["flaw"] = "deleted"
    new = [_id(len(truth) + i) for i in range(each)]
    for id_ in new:
        truth[id_] = _true_row(id_, rng)
        rows[id_] = _item(folder, truth[id_], rng)
    _write_csv(folder / "items.csv", _ITEM_COLUMNS, rows.values())
    _write_csv(folder / "factors.csv", _FACTOR_COLUMNS, truth.values())
    return {"text_edited": text_edited, "image_edited": image_edited, "new": new, "deleted": deleted}


def _id(number: int) -> str:
    return f"p{number:06d}"


def _true_row(id_: str, rng: np.random.Generator) -> Row:
    shared, text_only, image_only = (int(rng.integers(count)) for count in (SHARED, MAKES, FINISHES))
    codes = {"shared": shared, "text_only": text_only, "image_only": image_only}
    return {"id": id_, **codes, "flaw": "", "duplicate_of": ""}


def _truth(items: int, rng: np.random.Generator) -> list[Row]:
    """Factors and flaws of every item; a duplicate has the factors of the sound item it repeats."""
    truth = [_true_row(_id(i), rng) for i in range(items)]
    order = iter(rng.permutation(items).tolist())
    for flaw, amount in FLAWS.items():
        count = amount if isinstance(amount, int) else max(1, round(amount * items))
        for _ in range(count):
            true = truth[next(order)]
            true["flaw"] = flaw
            if flaw == "duplicate":
                source = truth[next(order)]
                true |= {name: source[name] for name in ("shared", "text_only", "image_only")}
                true["duplicate_of"] = source["id"]
    return truth


def _item(folder: Path, true: Row, rng: np.random.Generator) -> Row:
    """An item's row of ``items.csv``; its picture is drawn into the folder."""
    text = write(true["shared"], true["text_only"], rng)
    image = true["id"] + (".png" if rng.random() < 0.1 else ".jpg")
    _save_picture(folder / "images" / image, true, rng)
    return {"id": true["id"], **text._asdict(), "image": image}


def _save_picture(path: Path, true: Row, rng: np.random.Generator) -> None:
    draw(true["shared"], true["image_only"], rng).save(path, quality=90)


def _blemish(folder: Path, rows: dict[str, Row], true: Row) -> None:
    """Give an item the flaw that its truth names."""
    row, flaw = rows[true["id"]], true["flaw"]
    picture = folder / "images" / row["image"]
    if flaw == "duplicate":
        source = rows[true["duplicate_of"]]
        row |= {name: source[name] for name in _TEXT_COLUMNS}
        picture.unlink()
        row["image"] = row["id"] + Path(source["image"]).suffix
        shutil.copyfile(folder / "images" / source["image"], folder / "images" / row["image"])
    if flaw in ("title_only", "empty"):
        row |= dict.fromkeys(_TEXT_COLUMNS if flaw == "empty" else _TEXT_COLUMNS[1:], "")
    if flaw in ("no_image", "empty"):
        row["image"] = ""
    if flaw in ("no_image", "empty", "missing_file"):
        picture.unlink()
    if flaw == "corrupt_image":
        picture.write_bytes(picture.read_bytes()[:900])


def _configuration(items: int) -> Row:
    """The pipeline's configuration for this catalogue; codebooks and training grow with the number of items."""
    codebook = int(np.clip(2 ** round(np.log2(1.5 * items**0.5)), 8, 256))
    return {
        "lake": "./lake",
        "catalog": {
            "source": {"path": "items.csv", "format": "csv", "options": {"header": True}},
            "id": "id",
            "text": "{title}. {brand}. {category}. {description}",
            "image": {"column": "image", "root": "images"},
            "full_snapshot": True,
        },
        "interactions": {
            "source": {"path": "interactions.csv", "format": "csv", "options": {"header": True}},
            "user": "user",
            "item": "item",
            "time": {"column": "time", "unit": "s"},
            "label": "clicked = 1",
        },
        "encoders": {"text": {"model": "builtin"}, "image": {"model": "builtin"}},
        "tokenizer": {
            "shared_levels": 3,
            "text_levels": 2,
            "image_levels": 2,
            "codebook_size": codebook,
            "dim": 64,
        },
        "ranker": {"dim": 64, "layers": 2, "heads": 2, "max_items": 100, "epochs": 4},
        "split": {"test_fraction": 0.1},
        "spark": {"master": "local[*]", "delta": "embedded", "conf": {}},
        "ray": {"address": "local"},
        "gates": {"max_collision_rate": 0.05, "min_perplexity": 0.2, "min_coverage": 0.999},
    }


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_csv(path: Path) -> list[Row]:
    """Rows of a generated table, its factor codes as integers."""
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for row in rows:
        row |= {name: int(row[name]) for name in ("shared", "text_only", "image_only") if name in row}
    return rows

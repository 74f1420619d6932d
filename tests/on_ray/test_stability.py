"""IDs are a function of item, content and tokenizer: whatever the order, the files, and the nights it took."""

import random
from pathlib import Path
from typing import Any

import pytest
from handmade import Night, config_of, encoded, extracted, trained
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.models import Config, Encoders
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.on_ray.tokenize import tokenize
from pipeline.release.releases import publish, released, released_ids
from schemas.semantic_id import disambiguator

ENCODER = encoder_fingerprint(Encoders())
CATALOGUE: dict[str, str] = {f"item {n}": f"content {n % 70}" for n in range(90)}  # some share their content
GATES = {"max_collision_rate": 1, "min_perplexity": 0, "max_row_drift": 100, "max_delete_fraction": 1}
GATES |= {"max_without_image_growth": 1}

Ids = dict[str, tuple[Any, ...]]


def shop(folder: Path) -> tuple[Config, str]:
    """An empty lake with a tokenizer; the same tokenizer in every folder."""
    config = config_of(folder, gates=GATES)
    return config, trained(Lake(config.lake), ENCODER)


def one_night(config: Config, tokenizer: str, night: Night, contents: list[str], files: int = 1) -> Ids:
    """The released IDs after ``night``; publish itself refuses an unchanged item whose ID moved, and an ID of two."""
    lake = Lake(config.lake)
    extracted(lake, night, files)
    encoded(lake, contents, ENCODER, files)
    with Run("tokenize", config) as run:
        tokenize(run, tokenizer)
    with Run("publish", config) as run:
        publish(run, tokenizer)
    assert run.metrics.get("ids_moved", 0) == 0
    release = released(lake)
    assert release is not None
    columns = ["item_id", "sid", "disambiguator", "shared", "text", "image"]
    rows = [tuple(map(str, row.values())) for row in released_ids(lake, release, columns).to_pylist()]
    assert len({row[1:3] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def history(count: int, seed: int) -> list[Night]:
    """Nights that end in :data:`CATALOGUE`: items come, are edited, deleted, come back, change back."""
    rng = random.Random(seed)
    nights, now = [], {}
    for _ in range(count - 1):
        night: dict[str, str | None] = {}
        for item, content in CATALOGUE.items():
            kind = rng.choice(("as is", "as is", "final", "other", "deleted"))
            if kind == "final":
                night[item] = content
            elif kind == "other":
                night[item] = f"content {rng.randrange(80)}"
            elif kind == "deleted" and item in now:
                night[item] = None
        nights.append(night)
        now = {item: content for item, content in (now | night).items() if content is not None}
    return [*nights, {item: content for item, content in CATALOGUE.items() if now.get(item) != content}]


@pytest.fixture(scope="module")
def at_once(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ids:
    """The IDs of one full run over one file."""
    config, tokenizer = shop(tmp_path_factory.mktemp("at once"))
    ids = one_night(config, tokenizer, CATALOGUE, sorted(set(CATALOGUE.values())))
    assert ids.keys() == CATALOGUE.keys()
    with Run("tokenize", config) as run:  # again
        tokenize(run, tokenizer)
    assert run.counts["skipped"] == len(CATALOGUE)
    assert run.counts["rows_out"] == 0
    return ids


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_order_and_files_change_nothing(at_once: Ids, tmp_path: Path) -> None:
    config, tokenizer = shop(tmp_path)
    rng = random.Random(0)
    items, contents = list(CATALOGUE.items()), sorted(set(CATALOGUE.values()))
    rng.shuffle(items)
    rng.shuffle(contents)
    assert one_night(config, tokenizer, dict(items), contents, files=16) == at_once


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("nights", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_nights_add_up_to_one_full_run(at_once: Ids, tmp_path: Path, nights: int) -> None:
    config, tokenizer = shop(tmp_path)
    seen: set[str] = set()
    for night in history(nights, seed=nights):
        fresh = {content for content in night.values() if content is not None} - seen
        seen |= fresh
        ids = one_night(config, tokenizer, night, sorted(fresh))
    assert ids == at_once


def test_histories_end_in_the_catalogue_and_say_something() -> None:
    nights = history(3, seed=3)
    now: dict[str, str | None] = {}
    for night in nights:
        now |= night
    assert {item: content for item, content in now.items() if content is not None} == CATALOGUE
    assert any(content is None for night in nights for content in night.values())
    assert any(nights[-1].get(item) is not None and nights[0].get(item) is not None for item in CATALOGUE)


@given(st.lists(st.text(min_size=1), unique=True, max_size=200))
def test_disambiguators_differ_between_items_and_fit_the_column(items: list[str]) -> None:
    numbers = [disambiguator(item) for item in items]
    assert len(set(numbers)) == len(items)
    assert all(0 <= number < 2**63 for number in numbers)


def test_a_disambiguator_never_moves() -> None:
    """Written down: released IDs stand on it."""
    assert disambiguator("item 0") == 8831574789290449055

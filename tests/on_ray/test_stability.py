"""IDs are a function of item, content and tokenizer: whatever the order, the files, and the nights it took."""

import random
from pathlib import Path
from typing import Any

import pytest
from handmade import Night, config_of, encoded, extracted, trained, writable
from hypothesis import given
from hypothesis import strategies as st
from nights import tokenize_night
from pyspark.sql import SparkSession

from pipeline.config.encoders import Encoders
from pipeline.config.models import Config
from pipeline.lake.run import Run
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_spark.publish import publish
from schemas.semantic_id import item_hash

ENCODERS = encoder_fingerprints(Encoders())
CATALOGUE: dict[str, str] = {f"item {n}": f"content {n % 70}" for n in range(90)}  # some share their content
GATES = {
    "max_collision_rate": 1,
    "min_perplexity": 0,
    "max_code_share": 1000,
    "max_row_drift": 100,
    "max_delete_fraction": 1,
}
GATES |= {"max_without_image_growth": 1}

Ids = dict[str, tuple[Any, ...]]


def shop(folder: Path) -> tuple[Config, str]:
    """An empty lake with a tokenizer; the same tokenizer in every folder."""
    config = config_of(folder, gates=GATES)
    return config, trained(writable(config.lake), ENCODERS)


def one_night(
    spark: SparkSession, config: Config, tokenizer: str, night: Night, contents: list[str], files: int = 1
) -> Ids:
    """The released IDs after ``night``; publish itself refuses an unchanged item whose ID moved, and an ID of two."""
    lake = writable(config.lake)
    extracted(lake, night, files)
    encoded(lake, contents, ENCODERS, files)
    tokenize_night(spark, config, tokenizer, ENCODERS)
    with Run("publish", config) as run:
        publish(spark, run, tokenizer)
    assert run.metrics.get("ids_moved", 0) == 0
    columns = ["item_id", "sid", "item_hash", "shared", "text", "image"]
    rows = [tuple(map(str, row.values())) for row in lake.released_ids().to_table(columns).to_pylist()]
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
def at_once(spark: SparkSession, ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ids:
    """The IDs of one full run over one file."""
    config, tokenizer = shop(tmp_path_factory.mktemp("at once"))
    ids = one_night(spark, config, tokenizer, CATALOGUE, sorted(set(CATALOGUE.values())))
    assert ids.keys() == CATALOGUE.keys()
    assert tokenize_night(spark, config, tokenizer, ENCODERS).counts == {"rows_in": 0, "unencoded": 0}  # again
    return ids


@pytest.mark.spark
@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("nights", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_nights_in_any_order_and_files_add_up_to_one_full_run(
    spark: SparkSession, at_once: Ids, tmp_path: Path, nights: int
) -> None:
    config, tokenizer = shop(tmp_path)
    rng = random.Random(0)
    seen: set[str] = set()
    for number, night in enumerate(history(nights, seed=nights)):
        fresh = {content for content in night.values() if content is not None} - seen
        seen |= fresh
        items = rng.sample(list(night.items()), len(night))
        contents = rng.sample(sorted(fresh), len(fresh))
        ids = one_night(spark, config, tokenizer, dict(items), contents, files=1 if number else 16)
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
def test_hashes_differ_between_items_and_fit_the_column(items: list[str]) -> None:
    numbers = [item_hash(item) for item in items]
    assert len(set(numbers)) == len(items)
    assert all(0 <= number < 2**63 for number in numbers)


def test_a_hash_never_moves() -> None:
    """Written down: released IDs stand on it."""
    assert item_hash("item 0") == 8831574789290449055

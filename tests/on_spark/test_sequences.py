"""Windows made by Spark against a plain reading of the rules, on seeded histories."""

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipeline.config.models import Interactions
from pipeline.errors import ConfigError, JobError
from pipeline.on_spark.sequences import build_windows, explained, item_tokens, read_events, with_split
from schemas.semantic_id import Layout, item_hash
from schemas.tables import RELEASED_IDS

pytestmark = pytest.mark.spark

INTERACTIONS = {"user": "user", "item": "item", "time": {"column": "at"}, "label": "try_cast(rating AS double) > 3"}

EVENTS = "user_id string, time bigint, item_id string, label tinyint, tokens array<smallint>, item_hash bigint"
Event = tuple[str, int, str, int]  # user, time, item, label


def histories(seed: int) -> list[Event]:
    rng = random.Random(seed)
    events = []
    for user in range(rng.randint(3, 6)):
        count = rng.choice([1, 2, 3, 7, 8, 9, 30])
        events += [(f"u{user}", rng.randint(0, 100), f"i{rng.randint(0, 9)}", rng.randint(0, 1)) for _ in range(count)]
    return events


def plain_windows(events: list[Event], cut: float, size: int) -> dict[tuple[str, str, int], dict[str, Any]]:
    counts = Counter(item for _, time, item, _ in events if time < cut)
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_user[event[0]].append(event)
    step = max(1, size // 2)
    windows = {}
    for user, own in by_user.items():
        own = sorted(own, key=lambda e: (e[1], e[2], e[3]))
        for split in ("train", "test"):
            seen = [e for e in own if e[1] < cut] if split == "train" else own
            start = 0
            while seen:
                part = seen[start : start + size]
                fresh = 0 if start == 0 else size - step
                mask = [k >= fresh and (split == "train" or e[1] >= cut) for k, e in enumerate(part)]
                if any(mask):
                    windows[user, split, start // step] = {
                        "item_hashes": [item_hash(e[2]) for e in part],
                        "item_ids": [e[2] for e in part] if split == "test" else None,
                        "tokens": [token for e in part for token in (int(e[2][1:]), 99)],
                        "labels": [e[3] for e in part],
                        "times": [e[1] for e in part],
                        "loss_mask": mask,
                        "train_count": [counts[e[2]] for e in part],
                    }
                if start + size >= len(seen):
                    break
                start += step
    return windows


@pytest.mark.parametrize(("seed", "size"), [(0, 8), (1, 7), (2, 2), (3, 3)])
def test_windows_are_those_of_the_plain_rules(spark: SparkSession, seed: int, size: int) -> None:
    events, cut = histories(seed), 70.0
    rows = [(*event, [int(event[2][1:]), 99], item_hash(event[2])) for event in events]
    random.Random(seed).shuffle(rows)
    frame = spark.createDataFrame(rows, EVENTS)
    found = build_windows(with_split(frame, cut), size, 2).toLocalIterator()
    got = {(row.user_id, row.split, row.window): row.asDict() for row in found}
    expected = plain_windows(events, cut, size)
    assert got.keys() == expected.keys()
    for key, window in expected.items():
        assert {name: got[key][name] for name in window} == window, key


def test_every_event_counts_once(spark: SparkSession) -> None:
    events = histories(4)
    rows = [(*event, [0], 1) for event in events]
    frame = spark.createDataFrame(rows, EVENTS)
    windows = list(build_windows(with_split(frame, 50.0), 4, 1).toLocalIterator())
    counted = Counter(
        (row.split, row.user_id, time)
        for row in windows
        for time, counts in zip(row.times, row.loss_mask, strict=True)
        if counts
    )
    assert counted == Counter(("train" if time < 50 else "test", user, time) for user, time, _, _ in events)
    assert all(time < 50 for row in windows if row.split == "train" for time in row.times)


def interactions(folder: Path, text: str, **settings: object) -> Interactions:
    (folder / "events.csv").write_text("user,item,at,rating\n" + text)
    source = {"path": str(folder / "events.csv"), "format": "csv", "options": {"header": True}}
    return Interactions.model_validate(INTERACTIONS | {"source": source} | settings)


def test_every_slot_of_a_released_item_has_a_token(spark: SparkSession) -> None:
    columns = "item_id string, item_hash bigint, shared array<smallint>, text array<smallint>, image array<smallint>"
    rows = [("a", 1, [2], None, [5]), ("b", 2, [3], None, None), ("c", 3, [4], [6], None)]
    released = spark.createDataFrame(rows, columns)
    assert set(released.columns) <= set(RELEASED_IDS.schema.names)
    layout = Layout(shared_levels=1, text_levels=0, image_levels=1, codebook_size=8)
    found = [tuple(row) for row in item_tokens(released, layout).orderBy("item_id").collect()]
    assert found == [("a", 1, [2, 5]), ("b", 2, [3, 8]), ("c", 3, [4, 8])]


def test_rows_that_do_not_say_everything_are_null_where_they_do_not(spark: SparkSession, tmp_path: Path) -> None:
    settings = interactions(tmp_path, "u,i,10,3.5\n,i,11,5\nu,,12,5\nu,i,soon,5\nu,i,13,\nu,i,1.5,2\n")
    rows = [tuple(row) for row in read_events(spark, settings).toLocalIterator()]
    assert rows == [
        ("u", "i", 10_000, 1),
        (None, "i", 11_000, 1),
        ("u", None, 12_000, 1),
        ("u", "i", None, 1),
        ("u", "i", 13_000, None),
        ("u", "i", 1_500, 0),
    ]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"label": "stars > 3"}, "interactions.label: 'stars > 3'"),
        ({"label": "rating >"}, "interactions.label: 'rating >'"),
        ({"user": "who"}, "interactions.user: there is no column 'who'"),
    ],
)
def test_a_section_that_the_source_does_not_fit_is_refused(
    spark: SparkSession, tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_events(spark, interactions(tmp_path, "u,i,1,5\n", **settings))


def test_a_value_that_the_label_cannot_take_is_explained(spark: SparkSession, tmp_path: Path) -> None:
    settings = interactions(tmp_path, "u,i,1,4.5\n", label="rating > 3")
    with pytest.raises(JobError, match=r"'rating > 3' fails on a row: .*try_cast"), explained(settings):
        read_events(spark, settings).where("label = 1").count()

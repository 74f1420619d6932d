"""Windows made by Spark against a plain reading of the rules, on seeded histories."""

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Interactions, Split
from pipeline.errors import ConfigError, JobError
from pipeline.on_spark.interactions import explained, read_events, with_ages, without_repeats
from pipeline.on_spark.sequences import Rule, build_windows, item_tokens, with_requests
from pipeline.on_spark.split import split_time, with_split
from schemas.semantic_id import Layout, item_hash
from schemas.tables import RELEASED_IDS

pytestmark = pytest.mark.spark

INTERACTIONS = {"user": "user", "item": "item", "time": {"column": "at"}, "label": "try_cast(rating AS double) > 3"}

EVENTS = (
    "user_id string, time bigint, item_id string, label tinyint, feedback float, request string, "
    "tokens array<smallint>, item_hash bigint"
)
Event = tuple[str, int, str, int, float | None, str | None]  # user, time, item, label, feedback, request


def histories(seed: int) -> list[Event]:
    """Of few times, so that many events share one; no event twice."""
    rng = random.Random(seed)
    events: dict[tuple[str, int, str], Event] = {}
    for user in range(rng.randint(3, 6)):
        for _ in range(rng.choice([1, 2, 3, 7, 8, 9, 30])):
            key = (f"u{user}", rng.randint(0, 20) * 5, f"i{rng.randint(0, 9)}")
            graded, request = rng.choice([None, 1.5, 4.0]), rng.choice([None, "a", "b", "c"])
            events[key] = (*key, rng.randint(0, 1), graded, request)
    return list(events.values())


def frame_of(spark: SparkSession, events: list[Event], tokens: int = 2) -> DataFrame:
    rows = [(*event, [int(event[2][1:]), 99][:tokens], item_hash(event[2])) for event in events]
    random.Random(0).shuffle(rows)
    return spark.createDataFrame(rows, EVENTS)


def plain_requests(own: list[Event], cut: float, rule: Rule, block: int) -> list[tuple[Any, int]]:
    """Of a user's events in order, the name of each one's request and how many events came before it began."""
    earlier = [sum(e[1] < event[1] for e in own) for event in own]
    first = min((n for n, event in zip(earlier, own, strict=True) if event[1] >= cut), default=0)
    names: list[Any] = {
        "time": [event[1] for event in own],
        "blocks": [(n - first) // block for n in earlier],
        "column": [event[1] if event[5] is None else event[5] for event in own],
    }[rule]
    return [(name, min(n for n, other in zip(earlier, names, strict=True) if other == name)) for name in names]


def plain_windows(
    events: list[Event], cut: float, size: int, rule: Rule = "time", block: int = 3
) -> dict[tuple[str, str, int], dict[str, Any]]:
    counts = Counter(e[2] for e in events if e[1] < cut)
    clicks = Counter(e[2] for e in events if e[1] < cut and e[3])
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_user[event[0]].append(event)
    step = max(1, size // 2)
    windows = {}
    for user, own in by_user.items():
        own = sorted(own, key=lambda e: (e[1], e[2]))
        requests = plain_requests(own, cut, rule, block)
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
                        "feedback": [e[4] for e in part],
                        "times": [e[1] for e in part],
                        "loss_mask": mask,
                        "train_count": [counts[e[2]] for e in part],
                        "train_clicks": [clicks[e[2]] for e in part],
                        "requests": [requests[start + k][0] for k in range(len(part))] if split == "test" else None,
                        "known": [max(0, requests[start + k][1] - start) for k in range(len(part))]
                        if split == "test"
                        else None,
                        "latest": start + size >= len(seen) == len(own),
                    }
                if start + size >= len(seen):
                    break
                start += step
    return windows


@pytest.mark.parametrize(("seed", "size", "rule"), [(0, 8, "time"), (1, 7, "blocks"), (2, 2, "column"), (3, 3, "time")])
def test_windows_are_those_of_the_plain_rules(spark: SparkSession, seed: int, size: int, rule: Rule) -> None:
    events, cut = histories(seed), 70.0
    dated = with_requests(with_split(frame_of(spark, events), cut), rule, 3)
    found = build_windows(dated, size, graded=True).toLocalIterator()
    got = {(row.user_id, row.split, row.window): row.asDict() for row in found}
    expected = plain_windows(events, cut, size, rule)
    assert got.keys() == expected.keys()
    of_number: dict[Any, set[Any]] = defaultdict(set)
    for key, window in expected.items():
        names, numbers = window.pop("requests"), got[key]["requests"]
        assert (names is None) == (numbers is None)
        for name, number in zip(names or (), numbers or (), strict=True):
            of_number[key[0], number].add(name)
            of_number[key[0], "name", name].add(number)
        assert {name: got[key][name] for name in window} == window, key
    assert all(len(same) == 1 for same in of_number.values())  # a number a request


def test_of_every_user_one_window_is_the_latest(spark: SparkSession) -> None:
    events = histories(5)
    dated = with_requests(with_split(frame_of(spark, events), 50.0), "time", 3)
    rows = build_windows(dated, 4, graded=False).where("latest").toLocalIterator()
    ends = {row.user_id: (row.times[-1], row.feedback) for row in rows}
    assert ends == {user: (max(e[1] for e in events if e[0] == user), None) for user in {e[0] for e in events}}


def test_an_event_that_is_said_again_counts_once(spark: SparkSession) -> None:
    again = [
        *(("u", 1, "i", 0, None, None), ("u", 1, "i", 0, None, None), ("u", 1, "i", 1, 2.0, "a")),
        *(("u", 1, "i", 1, 3.0, None), ("u", 2, "i", 0, None, None), ("v", 1, "i", 0, 1.0, None)),
    ]
    columns = "user_id string, time bigint, item_id string, label tinyint, feedback float, request string"
    found = without_repeats(spark.createDataFrame(again, columns)).orderBy("user_id", "time").collect()
    assert [tuple(row) for row in found] == [
        ("u", "i", 1, 1, 3.0, None, 4, True),
        ("u", "i", 2, 0, None, None, 1, False),
        ("v", "i", 1, 0, 1.0, None, 1, False),
    ]


def test_every_event_counts_once(spark: SparkSession) -> None:
    events = histories(4)
    dated = with_requests(with_split(frame_of(spark, events, tokens=1), 50.0), "time", 3)
    windows = list(build_windows(dated, 4, graded=True).toLocalIterator())
    counted = Counter(
        (row.split, row.user_id, time)
        for row in windows
        for time, counts in zip(row.times, row.loss_mask, strict=True)
        if counts
    )
    assert counted == Counter(("train" if time < 50 else "test", user, time) for user, time, *_ in events)
    assert all(time < 50 for row in windows if row.split == "train" for time in row.times)


def interactions(folder: Path, text: str, **settings: object) -> Interactions:
    (folder / "events.csv").write_text("user,item,at,rating\n" + text)
    source = {"path": str(folder / "events.csv"), "format": "csv", "options": {"header": True}}
    return Interactions.model_validate(INTERACTIONS | {"source": source} | settings)


def test_every_slot_of_a_released_item_has_a_token(spark: SparkSession) -> None:
    parts = "shared array<smallint>, text array<smallint>, image array<smallint>"
    columns = f"item_id string, item_hash bigint, {parts}, gone boolean"
    rows = [("a", 1, [2], None, [5], False), ("b", 2, [3], None, None, False), ("c", 3, [4], [6], None, True)]
    released = spark.createDataFrame(rows, columns)
    assert set(released.columns) - {"gone"} <= set(RELEASED_IDS.schema.names)
    layout = Layout(shared_levels=1, text_levels=0, image_levels=1, codebook_size=8)
    found = [tuple(row) for row in item_tokens(released, layout).orderBy("item_id").collect()]
    assert found == [("a", 1, False, [2, 5]), ("b", 2, False, [3, 8]), ("c", 3, True, [4, 8])]


def test_rows_that_do_not_say_everything_are_null_where_they_do_not(spark: SparkSession, tmp_path: Path) -> None:
    times = ["1700000010", "1700000011", "1700000012", "soon", "1700000013", "1700000001.5", "-1", "1700000014,5,more"]
    ends = ["u,i,{},3.5", ",i,{},5", "u,,{},5", "u,i,{},5", "u,i,{},", "u,i,{},2", "u,i,{},2", "u,i,{}"]
    text = "".join(end.format(time) + "\n" for end, time in zip(ends, times, strict=True))
    rows = [tuple(row) for row in read_events(spark, interactions(tmp_path, text)).toLocalIterator()]
    assert [row[:4] for row in rows] == [
        ("u", "i", 1_700_000_010_000, 1),
        (None, "i", 1_700_000_011_000, 1),
        ("u", None, 1_700_000_012_000, 1),
        ("u", "i", None, 1),
        ("u", "i", 1_700_000_013_000, None),
        ("u", "i", 1_700_000_001_500, 0),
        ("u", "i", None, 0),
        (None, None, None, None),
    ]
    assert [row[-1] for row in rows] == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"label": "stars > 3"}, "interactions.label: 'stars > 3'"),
        ({"label": "rating >"}, "interactions.label: 'rating >'"),
        ({"label": "rating ===> 3"}, r"interactions.label: 'rating ===> 3': \S"),
        ({"feedback": "stars / 5"}, "interactions.feedback: 'stars / 5'"),
        ({"request": "page"}, "interactions.request: there is no column 'page'"),
        ({"user": "who"}, "interactions.user: there is no column 'who'"),
    ],
)
def test_a_section_that_the_source_does_not_fit_is_refused(
    spark: SparkSession, tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_events(spark, interactions(tmp_path, "u,i,1,5\n", **settings))


def test_graded_feedback_and_requests_are_read(spark: SparkSession, tmp_path: Path) -> None:
    text = "u,i,10,3.5\nu,i,11,\nu,i,12,much\nu,i,13,NaN\nu,i,14,1e99\n"
    settings = interactions(tmp_path, text, feedback="try_cast(rating AS double) / 5", request="user")
    rows = [(row.feedback, row.request) for row in read_events(spark, settings).toLocalIterator()]
    assert rows == [(pytest.approx(0.7), "u"), *((None, "u"),) * 4]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"label": "rating > 3"}, r"interactions.label: 'rating > 3' fails on a row: .*4\.5.*try_cast"),
        ({"label": "rating"}, r"interactions.label: 'rating' fails on a row: .*4\.5.*clicked = 'yes'"),
        ({"label": "user = 'u'", "feedback": "1 / (rating - 4.5)"}, "interactions.feedback: .* fails on a row: .*DIVI"),
    ],
)
def test_a_value_that_an_expression_cannot_take_is_explained(
    spark: SparkSession, tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    log = interactions(tmp_path, "u,i,1,4.5\n", **settings)
    with pytest.raises(JobError, match=fault) as told, explained(log):
        read_events(spark, log).agg(F.max("label"), F.max("feedback")).collect()
    assert "run it again" not in str(told.value)


@pytest.mark.parametrize("seed", range(3))
def test_the_point_of_the_split_is_that_of_a_sorted_list(spark: SparkSession, seed: int) -> None:
    rng = random.Random(seed)
    first = 1_600_000_000_000
    times = [first + rng.choice([1, 1000, 86_400_000]) * rng.randint(0, 9) for _ in range(rng.choice([1, 2, 11, 97]))]
    frame = spark.createDataFrame([(time,) for time in times], "time bigint")
    for fraction in (0.1, 0.5, 0.97):
        cut = split_time(frame, Split(test_fraction=fraction))
        interpolated = np.percentile(times, 100 * (1 - fraction))
        assert cut in times
        assert [time >= cut for time in times] == [time >= interpolated for time in times]


def test_the_split_may_be_a_date(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1_748_735_999_999,), (1_748_736_000_000,)], "time bigint")
    assert split_time(frame, Split.model_validate({"at": "2025-06-01"})) == 1_748_736_000_000
    for at, said in (("2025-05-31", "after .* none to train on"), ("2025-06-01T00:00:01", "before .* none to test")):
        with pytest.raises(JobError, match=f"split.at: every event is {said}"):
            split_time(frame, Split.model_validate({"at": at}))


def test_the_newest_events_of_a_user_come_first(spark: SparkSession) -> None:
    events = histories(6)
    random.Random(1).shuffle(events)
    ages = {(r.user_id, r.time, r.item_id): r.age for r in with_ages(frame_of(spark, events)).toLocalIterator()}
    for user in {event[0] for event in events}:
        own = sorted(((e[1], e[2]) for e in events if e[0] == user), reverse=True)
        assert [ages[(user, *key)] for key in own] == list(range(1, len(own) + 1))

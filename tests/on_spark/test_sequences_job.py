"""The job on a lake of 20 items with IDs made by hand: items that are gone, what is said again, what is wrong."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from released_shop import CODES, SHOP, A, ReleasedShop

from pipeline.config.models import Config, Interactions, Split
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.on_spark.sequences import sequences
from schemas.semantic_id import item_hash
from schemas.tables import SEQUENCES

pytestmark = pytest.mark.spark

SECOND = 1_735_689_600  # the first of 2025


def log_of(shop: ReleasedShop, folder: Path, rows: list[tuple[str, str, int, int]], **settings: Any) -> Config:
    """The shop's configuration with a log of user, item, seconds and click."""
    file = folder / "events.csv"
    file.write_text("user,item,at,click\n" + "".join(f"{u},{i},{SECOND + t},{c}\n" for u, i, t, c in rows))
    source = {"path": str(file), "format": "csv", "options": {"header": True}}
    section = {"source": source, "user": "user", "item": "item", "time": {"column": "at"}, "label": "click = 1"}
    interactions = Interactions.model_validate(section | settings)
    return shop.config.model_copy(update={"interactions": interactions})


def run_of(spark: SparkSession, config: Config) -> Run:
    with Run("sequences", config) as run:
        sequences(spark, run)
    return run


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> ReleasedShop:
    shop = ReleasedShop(spark, tmp_path)
    shop.identify(CODES)
    assert shop.publish()
    return shop


def test_items_that_left_the_catalogue_stay_in_history_and_test(
    spark: SparkSession, shop: ReleasedShop, tmp_path: Path
) -> None:
    shop.extract({"i3": None})
    assert shop.publish()
    assert "i3" not in shop.ids()
    rows = [("u", f"i{n}", n, n % 2) for n in range(10)] + [("u", "i3", 20, 1), ("u", "never", 21, 1)]
    run = run_of(spark, log_of(shop, tmp_path, rows))
    assert (run.counts["events"], run.counts["of_gone_items"], run.counts["without_ids"]) == (11, 2, 1)
    (test,) = (row for row in shop.lake.read(SEQUENCES, SEQUENCES.schema.names).to_pylist() if row["split"] == "test")
    assert test["item_ids"].count("i3") == 2
    shared, second, text, image = CODES["i3"]
    assert test["tokens"][3 * 4 : 4 * 4] == [shared, second, text, image]
    assert test["item_hashes"][3] == item_hash("i3")
    assert test["tokenizer"] == A


def test_what_the_log_says_again_is_dropped_and_counted(
    spark: SparkSession, shop: ReleasedShop, tmp_path: Path
) -> None:
    once = [(f"u{u}", f"i{n}", 10 * n, (u + n) % 2) for u in range(3) for n in range(20)]
    run_of(spark, log_of(shop, tmp_path, once))
    clean = shop.lake.read(SEQUENCES, SEQUENCES.schema.names).sort_by(
        [("user_id", "ascending"), ("split", "ascending")]
    )
    unclicked = [(u, i, t, 0) for u, i, t, c in once[::7] if c]
    run = run_of(spark, log_of(shop, tmp_path, [*once, *once[::3], *once[::6], *unclicked]))
    again = shop.lake.read(SEQUENCES, SEQUENCES.schema.names).sort_by(
        [("user_id", "ascending"), ("split", "ascending")]
    )
    assert again.equals(clean)
    assert (run.counts["repeated"], run.counts["contradicted"]) == (20 + 10, len(unclicked))
    assert run.counts["events"] == len(once) == len(SHOP) * 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "click = 'yes'"}, r"interactions.label: .* is 0 of all 10 events, so there is no positive event"),
        ({"label": "click >= 0"}, r"interactions.label: .* is 1 of all 10 events, so there is no negative event"),
        ({"time": {"column": "at", "unit": "ms"}}, r"interactions.time: .* times lie in year 1,970 .*is the unit s\?"),
        ({"item": "user"}, r"same item ids\? the log has 'u', the catalogue has 'i0', 'i1', 'i10'$"),
    ],
)
def test_a_log_to_learn_nothing_from_stops_the_job_before_it_writes(
    spark: SparkSession, shop: ReleasedShop, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    config = log_of(shop, tmp_path, [("u", f"i{n}", n, n % 2) for n in range(10)], **settings)
    with pytest.raises(JobError, match=said):
        run_of(spark, config)
    assert not shop.lake.exists(SEQUENCES)


def test_the_newest_events_of_a_user_are_kept_and_the_rest_counted(
    spark: SparkSession, shop: ReleasedShop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("bot", f"i{n % 20}", n, n % 2) for n in range(50)] + [("u", f"i{n}", n, 1) for n in range(5)]
    rows += [("u", f"x{n}", n, 1) for n in range(60)]
    rows += [("u", "i1", -SECOND - 1, 1)]
    config = log_of(shop, tmp_path, rows, max_user_events=20)
    config = config.model_copy(update={"split": Split.model_validate({"at": "2025-01-01T00:00:45Z"})})
    run = run_of(spark, config)
    assert (run.counts["events"], run.counts["over_user_limit"], run.counts["without_ids"]) == (25, 30, 60)
    assert (run.counts["bad_time"], run.counts["incomplete"], run.counts["bad_rows"]) == (1, 0, 0)
    parts = (
        "repeated",
        "contradicted",
        "without_ids",
        "over_user_limit",
        "events",
        "bad_time",
        "incomplete",
        "bad_rows",
    )
    assert run.counts["rows_in"] == len(rows) == sum(run.counts[name] for name in parts)
    (test,) = (row for row in windows_of(shop).to_pylist() if row["split"] == "test")
    assert [(time // 1000 - SECOND, own) for time, own in zip(test["times"], test["loss_mask"], strict=True)] == [
        (n, n >= 45) for n in range(30, 50)
    ]
    assert "55 of 115 events are of items that have released IDs; of the others the log has 'x0', 'x1', 'x10'" in (
        caplog.text
    )
    assert "times lie in year 1,969 (1 of 116 values, such as '-1')" in caplog.text


@pytest.mark.slow
def test_a_bot_of_300_000_events(spark: SparkSession, shop: ReleasedShop, tmp_path: Path) -> None:
    rows = [("bot", f"i{n % 20}", n, n % 2) for n in range(300_000)] + [("u", f"i{n}", n, n % 2) for n in range(20)]
    run = run_of(spark, log_of(shop, tmp_path, rows))
    assert (run.counts["events"], run.counts["over_user_limit"]) == (10_020, 290_000)


def windows_of(shop: ReleasedShop) -> pa.Table:
    rows = shop.lake.read(SEQUENCES, SEQUENCES.schema.names)
    return rows.sort_by([("user_id", "ascending"), ("split", "ascending")])

"""What the log of interactions does not say, or says wrongly: counted, told, and refused before anything is written."""

import logging
import re
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config.models import Interactions
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.on_spark.interactions import EARLIEST, EVENT, LATEST, nothing_in

logger = logging.getLogger(__name__)

YEAR = 31_556_952_000  # milliseconds
FACTORS = {"s": 1000, "ms": 1, "microseconds": 1e-3, "nanoseconds": 1e-6}  # to milliseconds
FEW = 0.5  # share of the events, below which those that find an item are told
SHOWN = 3  # ids


def check_events(run: Run, events: DataFrame, settings: Interactions) -> None:
    """Count the rows of :func:`pipeline.on_spark.interactions.read_events`, and what they do not say.

    ``rows_in`` are ``bad_rows`` (no columns), rows with a ``bad_time`` (no time, or one outside 1990 to 2099),
    ``incomplete`` ones, and events.

    Raises:
        JobError: there is no row, or most times are no times or lie outside of these years, as of another unit.
    """
    found = _figures(events)
    if not found["rows"]:
        raise nothing_in(settings)
    useless = found["bad_rows"] + found["bad_time"]
    run.count(rows_in=found["rows"], bad_rows=found["bad_rows"], bad_time=found["bad_time"])
    run.count(incomplete=found["rows"] - found["whole"] - useless)
    run.metrics["missing"] = {name: found[name] for name in EVENT}
    if found["bad_rows"]:
        logger.warning(
            "sequences: %s of %s rows of interactions.source cannot be read into columns; are quotes in it written "
            '\\"? Then set escape: "\\\\" in its options',
            *(f"{found[name]:,}" for name in ("bad_rows", "rows")),
        )
    when = f"interactions.time: column {settings.time.column!r} with unit {settings.time.unit!r}"
    if found["bad_rows"] < found["rows"] and not found["said"]:
        raise JobError(f"{when}: no row has a value")
    if found["bad_time"] * 2 > found["said"]:
        raise JobError(f"{when}: {_fault(found, settings.time.unit)}")
    if found["bad_time"]:
        logger.warning("sequences: %s: %s; these rows are left out", when, _fault(found, settings.time.unit))


def check_joined(run: Run, single: DataFrame, aged: DataFrame, items: DataFrame, settings: Interactions) -> None:
    """Count events, what was said again, those beyond a user's limit, of items that are gone or never had IDs.

    Args:
        run: of the job.
        single: every event once.
        aged: those of items that have IDs, with their ``age``.
        items: with ``item_id``.
        settings: the section.

    Raises:
        JobError: no event is of an item that has IDs, or their labels are all the same.
    """
    said = F.sum("rows").alias("said"), F.count("*").alias("events"), F.count_if("differ").alias("differ")
    (found,) = single.agg(*said).collect()
    repeats = (found["said"] or 0) - found["events"]
    of_items = F.count("*").alias("events"), F.count_if(F.col("age") > settings.max_user_events).alias("over")
    kept = F.col("age") <= settings.max_user_events
    labels = F.count_if(kept & (F.col("label") == 1)).alias("positive")
    (joined,) = aged.agg(*of_items, F.count_if(kept & F.col("gone")).alias("gone"), labels).collect()
    events = joined["events"] - joined["over"]
    run.count(repeated=repeats - found["differ"], contradicted=found["differ"])
    run.count(without_ids=found["events"] - joined["events"], of_gone_items=joined["gone"])
    run.count(over_user_limit=joined["over"], events=events)
    if joined["events"] < FEW * found["events"] or not joined["events"]:
        _tell_ids(found["events"], joined["events"], single, items)
    if joined["positive"] in (0, events):
        label, value = settings.label, int(joined["positive"] > 0)
        missing = "no negative event" if value else "no positive event"
        raise JobError(
            f"interactions.label: {label!r} is {value} of all {events:,} events, so there is {missing} and nothing can "
            "be learned: does the expression fit what the log holds?"
        )


def _figures(events: DataFrame) -> dict[str, Any]:
    said, moment = F.col("said"), F.col("moment")
    unread, early, late = said.isNotNull() & moment.isNull(), moment < EARLIEST, moment >= LATEST
    whole = reduce(Column.__and__, (F.col(name).isNotNull() for name in EVENT))
    (found,) = events.agg(
        F.count("*").alias("rows"),
        F.count_if("bad_row").alias("bad_rows"),
        F.count_if(whole).alias("whole"),
        F.count("said").alias("said"),
        F.count_if(said.isNotNull() & F.col("time").isNull()).alias("bad_time"),
        F.count_if(unread).alias("unread"),
        F.count_if(early).alias("early"),
        F.count_if(late).alias("late"),
        F.min(F.when(unread, said)).alias("unread_value"),
        F.max_by("said", F.when(early, moment)).alias("early_value"),
        F.min_by("said", F.when(late, moment)).alias("late_value"),
        F.max(F.when(early, moment)).alias("early_moment"),
        F.min(F.when(late, moment)).alias("late_moment"),
        *(F.count_if(F.col(name).isNull()).alias(name) for name in EVENT),
    ).collect()
    return found.asDict()


def _fault(found: dict[str, Any], unit: str) -> str:
    """Of what most of the bad times suffer, with a value, and what to do."""
    kind = max(("unread", "early", "late"), key=lambda name: found[name])
    share = f"{found[kind]:,} of {found['said']:,} values"
    value = found[f"{kind}_value"]
    if kind == "unread":
        could = "no value could" if found["unread"] == found["said"] else f"{share} could not"
        return f"{could} be read as a time, such as {value!r}; {_advice(value, unit)}"
    year = 1970 + found[f"{kind}_moment"] // YEAR
    return f"times lie in year {year:,} ({share}, such as {value!r}): {_advice(value, unit)}"


def _advice(value: str, unit: str) -> str:
    """What a value looks like, if that is another unit than the one configured."""
    number = float(value) if re.fullmatch(r"-?\d+(\.\d+)?([eE]\d+)?", value) else None
    if number is not None:
        likely = next((name for name, factor in FACTORS.items() if EARLIEST <= number * factor < LATEST), unit)
        if likely in ("s", "ms") and likely != unit:
            return f"is the unit {likely}?"
        if likely != unit:
            return f"are these {likely}? Write milliseconds, unit ms"
    elif unit != "timestamp" and re.match(r"\d{4}-\d\d-\d\d", value):
        return "is the unit timestamp?"
    return "a time lies within 1990 to 2099, as seconds (s), milliseconds (ms) or 2025-12-31 13:00:00 (timestamp)"


def _tell_ids(events: int, joined: int, single: DataFrame, items: DataFrame) -> None:
    """Some ids of the log without an item beside some ids of items."""
    strangers = _first_ids(single.join(items, on="item_id", how="left_anti"))
    shown = f"the log has {strangers}, the catalogue has {_first_ids(items)}"
    if not joined:
        raise JobError(f"no interaction is with an item that has released IDs: are these the same item ids? {shown}")
    logger.warning(
        "sequences: %s of %s events are of items that have released IDs; of the others %s", joined, events, shown
    )


def _first_ids(rows: DataFrame) -> str:
    first = rows.select("item_id").distinct().orderBy("item_id").limit(SHOWN).collect()
    return ", ".join(repr(row["item_id"]) for row in first) or "none"

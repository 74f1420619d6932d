"""What a publish would change for readers, or, where nothing is new, what the standing release changed."""

from typing import Any

import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.subject import Subject
from pipeline.on_spark.released_ids import changes as released_changes
from pipeline.release.pointer import Release
from schemas.tables import RELEASE_CHANGES, RELEASED_IDS, RELEASES

EXAMPLES = 8  # of a kind
KINDS = {
    "added": "items that are new to readers",
    "content": "items of another text or picture whose codes stay",
    "codes": "items that get other codes",
    "removed": "items that readers lose",
}


def changes(about: Subject, cards: Cards) -> dict[str, Any]:
    """By kind of change the number of items and examples; ``pending``: whether a publish has yet to make them.

    Of items whose codes are others, ``first_code_kept`` is the share whose first shared code is as before.
    """
    release, before = about.release, about.standing
    since = release.version if release else None
    found = _by_kind(released_changes(about.rows.limit(0) if before is None else before, about.rows, 0))
    pending = bool(found)
    if release is not None and not pending:
        found = _by_kind(about.tables.read(RELEASE_CHANGES, where={"release": str(release.version)}))
        since, before = _before(about, release)
    ids = sorted({row["item_id"] for each in found.values() for row in each["examples"]})
    old, new = _contents(before, ids), _contents(about.rows, ids)
    nothing: dict[str, Any] = {"items": 0, "first_code_kept": None, "examples": []}
    return {
        "pending": pending,
        "since": since,
        "release": release.version if release else None,
        "other_tokenizer": release is not None and release.tokenizer != about.tokenizer,
        "comparable": release is None or about.standing is not None,
        "kinds": [
            {"kind": kind, "meaning": meaning, "items": each["items"], "first_code_kept": each["first_code_kept"]}
            | {"examples": [_example(row, old, new, cards) for row in each["examples"]]}
            for kind, meaning in KINDS.items()
            for each in (found.get(kind, nothing),)
        ],
    }


def _by_kind(changed: DataFrame) -> dict[str, dict[str, Any]]:
    kind = F.when(F.col("change") != "changed", F.col("change"))
    kind = kind.when(F.col("old_sid") == F.col("new_sid"), "content").otherwise("codes")
    old_code, new_code = (F.regexp_extract(name, r"^s(\d+)", 1) for name in ("old_sid", "new_sid"))
    same_code = (kind == "codes") & (old_code == new_code)
    example = F.struct("item_id", "old_sid", "new_sid")
    grouped = changed.groupBy(kind.alias("kind")).agg(
        F.count("*").alias("items"),
        F.avg(F.when(same_code, 1.0).when(kind == "codes", 0.0)).alias("first_code_kept"),
        F.min_by(example, F.struct(F.xxhash64("item_id"), "item_id"), EXAMPLES).alias("examples"),
    )
    return {row["kind"]: row.asDict(recursive=True) for row in grouped.collect()}


def _contents(rows: DataFrame | None, ids: list[str]) -> dict[str, str]:
    if rows is None or not ids:
        return {}
    found = rows.where(F.col("item_id").isin(ids)).select("item_id", "content").collect()
    return {row["item_id"]: row["content"] for row in found}


def _example(row: dict[str, Any], old: dict[str, str], new: dict[str, str], cards: Cards) -> dict[str, Any]:
    sides = {"old": (row["old_sid"], old), "new": (row["new_sid"], new)}
    item = row["item_id"]
    return {"item_id": item} | {
        side: {"sid": sid, "card": cards.card({"item_id": item, "content": contents.get(item)})} if sid else None
        for side, (sid, contents) in sides.items()
    }


def _before(about: Subject, release: Release) -> tuple[int | None, DataFrame | None]:
    """The release that readers had before the standing one, and its rows, as far as they can be read."""
    earlier = about.lake.read(
        RELEASES, ["version", "released_ids_version"], where=ds.field("version") < release.version
    )
    if not earlier.num_rows:
        return None, None
    last = earlier.sort_by("version").to_pylist()[-1]
    if not about.lake.whole(RELEASED_IDS, last["released_ids_version"]):
        return last["version"], None
    return last["version"], about.tables.read(RELEASED_IDS, version=last["released_ids_version"])


def release_row(about: Subject) -> dict[str, Any] | None:
    """The standing release as its row has it: when and how it came."""
    if about.release is None:
        return None
    columns = ["version", "tokenizer", "action", "run_id", "time"]
    rows = about.lake.read(RELEASES, columns, where=ds.field("version") == about.release.version)
    return dict(rows.to_pylist()[0])

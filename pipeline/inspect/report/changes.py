"""What a publish would change for readers, or, where nothing is new, what the standing release changed."""

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.subject import Subject
from pipeline.on_spark.released_ids import changes as released_changes
from pipeline.release.pointer import Release, standing_releases
from schemas.tables import RELEASE_CHANGES, RELEASED_IDS, RELEASES

EXAMPLES = 8  # of a kind
KINDS = {
    "added": "items that readers do not have yet",
    "content": "items whose text or picture is another one and whose codes stay",
    "codes": "items whose codes are other ones",
    "removed": "items that readers lose",
}


def changes(about: Subject, cards: Cards) -> dict[str, Any]:
    """By kind of change the number of items and examples; ``pending``: whether a publish has yet to make them.

    Of items whose codes are others, ``first_code_kept`` is the share whose first shared code is as before.
    """
    standing = about.standing if about.standing is not None else about.rows.limit(0)
    found = _by_kind(released_changes(standing, about.rows, 0))
    pending, before, after = bool(found), about.standing, about.rows
    version = about.release.version if about.release else None
    if not pending and about.release is not None:
        made = about.tables.read(RELEASE_CHANGES, where={"release": str(about.release.version)})
        found = _by_kind(made)
        before = _rows_before(about, about.release)
        version = _version_before(about)
    examples = [row for kind in found.values() for row in kind["examples"]]
    ids = sorted({row["item_id"] for row in examples})
    old, new = _contents(before, ids), _contents(after, ids)
    return {
        "pending": pending,
        "since": version,
        "release": about.release.version if about.release else None,
        "other_tokenizer": about.release is not None and about.release.tokenizer != about.tokenizer,
        "comparable": about.release is None or about.standing is not None,
        "kinds": [
            {
                "kind": kind,
                "meaning": meaning,
                "items": found[kind]["items"] if kind in found else 0,
                "first_code_kept": found[kind]["first_code_kept"] if kind == "codes" and kind in found else None,
                "examples": [
                    _example(row, old, new, cards) for row in (found[kind]["examples"] if kind in found else ())
                ],
            }
            for kind, meaning in KINDS.items()
        ],
    }


def _by_kind(changed: DataFrame) -> dict[str, dict[str, Any]]:
    kind = F.when(F.col("change") != "changed", F.col("change"))
    kind = kind.when(F.col("old_sid") == F.col("new_sid"), "content").otherwise("codes")
    first_code = (F.regexp_extract(name, r"^s(\d+)", 1) for name in ("old_sid", "new_sid"))
    example = F.struct("item_id", "old_sid", "new_sid")
    grouped = changed.groupBy(kind.alias("kind")).agg(
        F.count("*").alias("items"),
        F.avg(F.when(next(first_code) == next(first_code), 1.0).otherwise(0.0)).alias("first_code_kept"),
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


def _rows_before(about: Subject, release: Release) -> DataFrame | None:
    """What readers had before the standing release, as far as it can be read."""
    earlier = [r for r in standing_releases(about.lake) if r.version < release.version]
    if not earlier or not about.lake.whole(RELEASED_IDS, earlier[-1].released_ids_version):
        return None
    return about.tables.read(RELEASED_IDS, version=earlier[-1].released_ids_version)


def _version_before(about: Subject) -> int | None:
    earlier = [r.version for r in standing_releases(about.lake) if about.release and r.version < about.release.version]
    return earlier[-1] if earlier else None


def release_row(about: Subject) -> dict[str, Any] | None:
    """The standing release as its row has it: when and how it came."""
    if about.release is None:
        return None
    columns = ["version", "tokenizer", "action", "run_id", "time"]
    rows: pa.Table = about.lake.read(RELEASES, columns, where=ds.field("version") == about.release.version)
    return dict(rows.to_pylist()[0])

"""Spark: the current items' IDs under a tokenizer become what readers read, if every gate lets them through."""

import logging
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from pipeline.errors import GateRefused, JobError
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.run import Run
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, Staged, spark_delta
from pipeline.on_spark.gate_figures import Totals, figures, totals
from pipeline.on_spark.released_ids import candidate_rows, changes
from pipeline.release.gates import broken, check, of_training
from pipeline.release.pointer import Release, complete_move, held_releases, move_metadata, newer_rows, released
from schemas.tables import ITEMS, RELEASE_CHANGES, RELEASED_IDS, SEMANTIC_IDS

logger = logging.getLogger(__name__)


def publish(spark: SparkSession, run: Run, tokenizer: str, *, force: bool = False) -> bool:
    """Release the newest IDs under ``tokenizer`` if every gate lets them through; false where the release stays.

    It stays where its rows would not change, and where the rows are those of a release that was rolled back from
    since the last one was published, which ``run.metrics["held"]`` then says. Committed are in order
    ``release_changes``, ``released_ids``, which is what readers see, and ``releases``.

    Args:
        spark: the session.
        run: of ``publish``; gets the figures as metrics, ``rows_in`` (current items) and ``rows_out`` (released).
        tokenizer: of the IDs.
        force: release whatever the gates say, also what was rolled back from.

    Raises:
        GateRefused: a figure broke its limit, or what is released cannot be read to be compared with, and ``force``
            was not given.
        ConfigError: the lake has no such tokenizer.
        JobError: there are no IDs under ``tokenizer``.
    """
    lake = run.lake
    complete_move(run)
    run.read(ITEMS)
    run.read(SEMANTIC_IDS)
    items_version, ids_version = (run.versions["read"][table.name] for table in (ITEMS, SEMANTIC_IDS))
    if items_version is None or ids_version is None:
        raise JobError(f"there are no IDs in {lake.uri}: run tokenize first")
    standing = released(lake)
    compared = _if_readable(run, standing, force=force)
    known = [*([compared] if compared else []), *([] if force else held_releases(lake))]
    for release in known:
        if release.tokenizer == tokenizer and not newer_rows(lake, release):
            return _stays(run, release, standing)
    layout = tokenizer_layout(lake, tokenizer)
    tables = spark_delta(spark, lake, run.config.spark)
    version = standing.version + 1 if standing else 1
    with run.phase("stage"):
        current = current_items(tables.read(ITEMS), "content").persist(StorageLevel.DISK_ONLY)
        ids = tables.read(SEMANTIC_IDS, where={"tokenizer": tokenizer})
        staged = tables.stage(RELEASED_IDS, candidate_rows(current, ids, version).orderBy("item_id"))
    try:
        with run.phase("measure"):
            found = totals(staged.rows)
            name = found.digest(tokenizer)
            same = next((release for release in known if release.digest == name), None)
            measured = _coverage(run, found, current.count(), tokenizer)
            if same is None:
                before = tables.read(RELEASED_IDS) if compared else None
                measured |= figures(staged.rows, found, layout, current, before, compared)
                measured |= of_training(lake, tokenizer)
            gates = _checked(run, measured, standing, tokenizer, blind=compared is not standing, force=force)
        if same is None:
            _write_changes(run, tables, staged, version, compared=compared is not None)
    except BaseException:
        tables.discard(staged)
        raise
    finally:
        current.unpersist()
    if same is not None:
        tables.discard(staged)
        return _stays(run, same, standing)
    release = Release(version, tokenizer, items_version, ids_version, 0, name)
    with run.phase("commit"):
        tables.commit(staged, overwrite={}, metadata=move_metadata(run, release, "publish", gates))
        run.wrote(RELEASED_IDS)
        complete_move(run)
    run.count(rows_out=measured["items_with_ids"])
    run.metrics |= {"tokenizer": tokenizer, "release": version}
    return True


def _if_readable(run: Run, standing: Release | None, *, force: bool) -> Release | None:
    """``standing``, if its rows can be compared with; else ``None``.

    Raises:
        GateRefused: they cannot be read, and ``force`` was not given.
    """
    version = run.lake.version(RELEASED_IDS)
    if standing is None or (version is not None and run.lake.whole(RELEASED_IDS, version)):
        return standing
    if not force:
        raise GateRefused(
            f"the rows of release {standing.version} cannot be read, so no drift from it can be measured: bring the "
            "files of released_ids back or, if they are lost, go forward with --force, which is recorded"
        )
    logger.warning("release %d cannot be read, its drift is not measured", standing.version)
    return None


def _coverage(run: Run, found: Totals, live_items: int, tokenizer: str) -> dict[str, Any]:
    """How many of the current items have an ID.

    Raises:
        JobError: none.
    """
    run.count(rows_in=live_items)
    if not found.items:
        raise JobError(f"no current item has an ID under tokenizer {tokenizer}: run tokenize first")
    return found.coverage(live_items)


def _checked(
    run: Run, figures: dict[str, Any], standing: Release | None, tokenizer: str, *, blind: bool, force: bool
) -> dict[str, Any]:
    """The gates with their figures, for the record of the release; ``blind`` where drift could not be measured.

    Raises:
        GateRefused: one does not hold, and ``force`` was not given.
    """
    same_tokenizer = standing is None or standing.tokenizer == tokenizer
    checked = check(figures, run.config.gates, same_tokenizer=same_tokenizer)
    faults = broken(checked)
    gates = checked | {"forced": force and (bool(faults) or blind)} | ({"drift": "not measured"} if blind else {})
    run.metrics |= figures | {"gates": gates}
    if faults and not force:
        stays = f"release {standing.version} stays" if standing else "nothing is released"
        force_it = f"hisam publish --tokenizer {tokenizer} --force"
        raise GateRefused(f"{stays}: {'; '.join(faults)}. {force_it} releases all the same, and is recorded")
    return gates


def _write_changes(run: Run, tables: SparkDelta, staged: Staged, version: int, *, compared: bool) -> None:
    """The rows of ``release_changes``; all items are added where there is nothing to compare with."""
    with run.phase("changes"):
        before = tables.read(RELEASED_IDS) if compared else staged.rows.limit(0)
        tables.overwrite(RELEASE_CHANGES, changes(before, staged.rows, version), where={"release": str(version)})
        run.wrote(RELEASE_CHANGES)


def _stays(run: Run, same: Release, standing: Release | None) -> bool:
    """False, said with its reason: the rows are as released, or those of a release that was rolled back from."""
    if same is not standing:
        run.metrics["held"] = (
            f"release {same.version} was rolled back from and its rows have not changed: "
            f"hisam publish --tokenizer {same.tokenizer} --force publishes them"
        )
    return False

"""Compaction: the small files that many nights leave become few, without changing a row or an ID.

delta-rs rewrites them in one commit a table, which keeps the order of rows. Jobs find rows by the file that holds them
in the newest version, so the next night finds every row in its new file. Older versions stay readable until the vacuum,
and those of ``released_ids`` that a rollback can reach even then.
"""

import logging
from typing import Any

from deltalake import CommitProperties, WriterProperties

from pipeline.lake.commit import fenced
from pipeline.lake.run import Run
from schemas.tables import RELEASES, SEMANTIC_IDS, TABLES, VECTORS

logger = logging.getLogger(__name__)

TARGET_BYTES = 128 * 2**20  # a file is the least that a later job reads
ROWS = 20_000  # of a row group, as of the largest file that Spark writes: readers stream one at a time
AT_ONCE = 4  # files written at a time, each held in memory
NOT_SPARK = (VECTORS, SEMANTIC_IDS, RELEASES)


def compact(run: Run, target_bytes: int = TARGET_BYTES) -> dict[str, dict[str, Any]]:
    """Rewrite the files of every table that are smaller than ``target_bytes``; says by table how many went and came.

    Native Delta on S3 commits through a log store of its own that delta-rs knows nothing of; there only the tables that
    Spark does not write are compacted.
    """
    lake, done = run.lake, {}
    through_spark = run.config.spark.delta == "native" and lake.store is not None
    for name, table in TABLES.items():
        if not lake.exists(table):
            continue
        if through_spark and table not in NOT_SPARK:
            logger.warning("compact: %s is left to Spark's OPTIMIZE: its commits go through a log store", name)
            continue
        run.read(table)
        with run.phase(name), fenced(lake, table) as (delta, transactions):
            figures = delta.optimize.compact(
                target_size=target_bytes,
                max_concurrent_tasks=AT_ONCE,
                writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=ROWS),
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        run.wrote(table)
        done[name] = {"files_before": figures["numFilesRemoved"], "files_after": figures["numFilesAdded"]}
        run.count(files_removed=figures["numFilesRemoved"], files_added=figures["numFilesAdded"])
    run.metrics["tables"] = done
    return done

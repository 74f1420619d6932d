"""Rows to commit, and what a table holds then."""

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.lake.commit import stage
from pipeline.lake.storage import Lake
from schemas.tables import QUARANTINE, RELEASE_CHANGES, VECTORS

ENCODER = "0123456789abcdef"


def vectors(*shas: str, encoder: str = ENCODER) -> pa.Table:
    rows = [{"encoder": encoder, "sha": sha, "vector": [0.5, -1.0], "fault": None} for sha in shas]
    return pa.Table.from_pylist(rows, schema=VECTORS.schema)


def changes(release: int, *items: str) -> pa.Table:
    rows = [{"release": release, "item_id": item, "change": "added", "new_sid": "s1"} for item in items]
    return pa.Table.from_pylist(rows, schema=RELEASE_CHANGES.schema)


def faults(*items: str) -> pa.Table:
    row = {"reason": "empty", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    return pa.Table.from_pylist([{"item_id": item, **row} for item in items], schema=QUARANTINE.schema)


def staged(lake: Lake, *shas: str) -> str:
    return stage(lake, VECTORS, vectors(*shas), {"encoder": ENCODER})


def shas(lake: Lake, where: ds.Expression | None = None) -> list[str]:
    return sorted(lake.read(VECTORS, ["sha"], where=where)["sha"].to_pylist())


def statistics(lake: Lake, table: Any) -> list[dict[str, Any]]:
    return pa.table(lake.delta(table).get_add_actions(flatten=True)).to_pylist()

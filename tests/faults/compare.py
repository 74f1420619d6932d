"""What two lakes hold, row by row, whatever the runs, files and versions are called."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from shops import config_of

from pipeline.lake.artefacts import fingerprints, local_folder
from pipeline.lake.storage import Lake
from schemas.tables import TABLES
from tokenizer.base.artefact import load

INCIDENTAL = {"run_id", "extracted_at", "seen_at", "time", "source", "picture_stat", "row_hash"}
INCIDENTAL |= {"items_version", "semantic_ids_version", "released_ids_version"}

Row = tuple[str, ...]


def contents(folder: Path) -> Counter[Row]:
    """Every row of every table, its table's name first, and every artefact; how often each is there."""
    return lake_contents(
        Lake.open(config_of(folder).lake) if (folder / "lake").exists() else Lake(config_of(folder).lake)
    )


def lake_contents(lake: Lake) -> Counter[Row]:
    """The same of a lake that may lie in a store."""
    rows: Counter[Row] = Counter()
    for table in TABLES.values():
        columns = [name for name in table.schema.names if name not in INCIDENTAL]
        for row in lake.read(table, columns).to_pylist():
            rows[(table.name, *(_short(row[name]) for name in columns))] += 1
    for kind in ("tokenizers", "rankers"):
        for fingerprint in fingerprints(lake, kind):
            rows[(kind, fingerprint)] += 1
            if kind == "tokenizers":
                with local_folder(lake, kind, fingerprint) as folder:
                    load(folder)  # refuses one whose files are not those of its fingerprint
    return rows


def _short(value: Any) -> str:
    value = re.sub(r"/\S+(?=/images)", "", value) if isinstance(value, str) else value  # the shops' own folders
    said = value if isinstance(value, bytes) else repr(value).encode()
    return said.decode() if len(said) <= 100 and not isinstance(value, bytes) else hashlib.sha256(said).hexdigest()

"""What collisions cost at a million items: naming them apart, and publish's check that no two share an ID.

Sizes of groups of equal codes follow Zipf's law, so a few tuples have thousands of items and most have one. Each
step runs ``turns`` times; the table has medians of wall time and, which a busy machine stretches less, of processor
time over all threads.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from pipeline.lake.storage import Lake
from pipeline.release.gates import COLUMNS, Snapshot, collisions, drift, measure
from pipeline.release.releases import Release, snapshot
from schemas.semantic_id import Layout, disambiguator
from schemas.tables import ITEMS, SEMANTIC_IDS

LAYOUT = Layout(3, 2, 2, 256)
EXPONENT = 1.2
TOKENIZER = "0" * 16


def zipf_groups(items: int, exponent: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The number of every item's tuple: the k-th most frequent one has a share of about k^-exponent."""
    return np.random.default_rng(0).zipf(exponent, items) % (1 << 40)


def ids(group_N: np.ndarray[Any, np.dtype[np.int64]], items: list[str], numbers: list[int]) -> pa.Table:
    """Rows of ``semantic_ids``: every group has a tuple of its own, every item a content of its own."""
    distinct, place_N = np.unique(group_N, return_inverse=True)
    digits = np.arange(len(distinct))[:, None] // LAYOUT.codebook_size ** np.arange(LAYOUT.slots) % LAYOUT.codebook_size
    codes_TS = digits.astype(np.int16)
    names = pa.array([LAYOUT.format(LAYOUT.split(row)) for row in codes_TS.tolist()])
    parts = {
        part: pa.FixedSizeListArray.from_arrays(pa.array(codes_TS[place_N, span].ravel()), span.stop - span.start)
        for part, span in LAYOUT.spans().items()
    }
    count = len(items)
    columns = {
        "item_id": pa.array(items),
        "content_hash": pa.array([f"{number:064x}" for number in numbers]),
        "tokenizer": pa.array([TOKENIZER] * count),
        **{part: codes.cast(SEMANTIC_IDS.schema.field(part).type) for part, codes in parts.items()},
        "disambiguator": pa.array(numbers, pa.int64()),
        "sid": names.take(pa.array(place_N)),
        "has_text": pa.array(np.ones(count, bool)),
        "has_image": pa.array(np.ones(count, bool)),
        "run_id": pa.array(["r"] * count),
    }
    return pa.table(columns, schema=SEMANTIC_IDS.schema)


def fill(folder: Path, rows: pa.Table) -> tuple[Lake, Release]:
    """A lake of these items and IDs, as a release of it would see them."""
    lake = Lake(str(folder))
    count = rows.num_rows
    columns = {
        "item_id": rows["item_id"],
        "content_hash": rows["content_hash"],
        "deleted": pa.array(np.zeros(count, bool)),
        "run_id": rows["run_id"],
        "extracted_at": pa.array(np.zeros(count, np.int64), ITEMS.schema.field("extracted_at").type),
    }
    empty = {f.name: pa.nulls(count, f.type) for f in ITEMS.schema if f.name not in columns}
    lake.create(ITEMS)
    lake.append(ITEMS, pa.table(columns | empty).select(ITEMS.schema.names).cast(ITEMS.schema))
    lake.create(SEMANTIC_IDS)
    lake.append(SEMANTIC_IDS, rows)
    return lake, Release(1, TOKENIZER, 1, 1)


def seconds(step: Callable[[], object], turns: int) -> dict[str, list[float]]:
    """Wall and processor time of every turn."""
    found: dict[str, list[float]] = {"wall": [], "processor": []}
    for _ in range(turns):
        began = time.perf_counter(), time.process_time()
        step()
        found["wall"].append(time.perf_counter() - began[0])
        found["processor"].append(time.process_time() - began[1])
    return found


def main(items: int = 1_000_000, exponent: float = EXPONENT, turns: int = 3) -> None:
    """Print the table and write ``results/collisions.json``."""
    names = [f"item-{n:09d}" for n in range(items)]
    group_N = zipf_groups(items, exponent)
    rows = ids(group_N, names, list(map(disambiguator, names)))
    sizes = np.unique(group_N, return_counts=True)[1]
    seen = Snapshot(TOKENIZER, rows["item_id"], rows.select(COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        lake, release = fill(Path(folder), rows)
        steps: dict[str, Callable[[], object]] = {
            "disambiguators of all items": lambda: list(map(disambiguator, names)),
            "collisions and uniqueness of IDs": lambda: collisions(rows),
            "every figure of the IDs alone": lambda: measure(seen, LAYOUT),
            "drift against as many released IDs": lambda: drift(seen, seen),
            "reading a release from its tables": lambda: snapshot(lake, release),
        }
        times = {name: seconds(step, turns) for name, step in steps.items()}
    found: dict[str, Any] = {
        "items": items,
        "exponent": exponent,
        "tuples": len(sizes),
        "largest_group": int(sizes.max()),
        **collisions(rows),
        "seconds": times,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "collisions.json").write_text(json.dumps(found, indent=1) + "\n")
    shape = f"{items:,} items, {len(sizes):,} tuples, the largest of {sizes.max():,} items"
    table = Table("step", "wall, s", "least to greatest", "processor, s", title=shape, title_justify="left")
    for name, turn in times.items():
        wall, processor = turn["wall"], statistics.median(turn["processor"])
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        table.add_row(name, f"{statistics.median(wall):.2f}", spread, f"{processor:.2f}")
    console = Console()
    console.print(table)
    sharing = found["items_sharing_codes"] / items
    console.print(f"{sharing:.1%} share their codes, {found['items_sharing_an_id']} share an ID", highlight=False)


if __name__ == "__main__":
    typer.run(main)

"""What a training step costs by the rows of the table of items' own vectors: sparse updates against dense ones.

``python -m benchmarks.item_table`` trains the default HMAT with ``item_id`` on random windows whose items are drawn
from all rows. Dense is the same table under AdamW, whose gradient, moments and update are of every row.

Letters: B windows, N items, T semantic tokens.
"""

import itertools
import json
import statistics
import time
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from ranker.architectures import build
from ranker.config import ItemIdConfig, RankerConfig
from ranker.training import Training
from ranker.windows import WindowBatch
from schemas.semantic_id import Layout

LAYOUT = Layout(3, 2, 2, 256)
ROWS = (10**4, 10**5, 10**6)
WINDOWS, ITEMS = 8, 200  # of a step
WARM = 2  # steps


def batch_of(rows: int, seed: int) -> WindowBatch:
    """Items of ``rows``, drawn evenly, under random codes and labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (WINDOWS, ITEMS)
    return WindowBatch(
        torch.randint(0, LAYOUT.codebook_size, (*shape, LAYOUT.slots), generator=generator),
        torch.randint(0, rows, shape, generator=generator),
        torch.randint(0, 2, shape, generator=generator),
        torch.ones(shape, dtype=torch.bool),
        torch.full(shape, torch.nan),
    )


def step_seconds(rows: int, steps: int, *, sparse: bool) -> float:
    """Median of some steps."""
    config = RankerConfig(item_id=ItemIdConfig())
    model = build(config, LAYOUT, hash_I=torch.arange(rows))
    model.items.identity.table.sparse = sparse  # type: ignore[union-attr]
    training = Training(model, config, LAYOUT, WINDOWS * (steps + WARM))
    ends: list[float] = []
    batches = (batch_of(rows, seed) for seed in range(steps + WARM))
    training.run_epoch(batches, on_step=lambda _: ends.append(time.perf_counter()))
    return statistics.median(after - before for before, after in itertools.pairwise(ends[WARM - 1 :]))


def main(steps: int = 15, threads: int = 1) -> None:
    """Print the table and write ``results/item_table.json``."""
    torch.set_num_threads(threads)
    found: list[dict[str, Any]] = []
    table = Table("rows", "dense, ms", "sparse, ms", title="a training step")
    for rows in ROWS:
        dense, sparse = (step_seconds(rows, steps, sparse=sparse) for sparse in (False, True))
        found.append({"rows": rows, "dense": dense, "sparse": sparse})
        table.add_row(f"{rows:,}", f"{dense * 1e3:.0f}", f"{sparse * 1e3:.0f}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "item_table.json").write_text(json.dumps({"threads": threads, "steps": found}, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

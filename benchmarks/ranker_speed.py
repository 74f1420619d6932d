"""What the HMAT's attention saves over the flat transformer's, at equal size: passes, peak memory, scoring.

Both run in one process in turn, so that what else the machine does meets both; a ratio is the median over the turns,
with the least and the greatest beside it. The flat transformer runs on torch's own flash attention and, as the HMAT,
reads in its last layer no more than it must. ``with all`` is the HMAT with its memory of taste, on windows in which
items share their times, against the flat transformer on windows in which none do: that is what it is fastest at.

Letters: B windows, N items, T semantic tokens, C candidates, I items that have factors.
"""

import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.trials import RESULTS
from ranker.architectures import build
from ranker.config import CollaborativeConfig, RankerConfig
from ranker.factors import ItemFactors
from ranker.hmat.model import HMAT
from schemas.semantic_id import Layout

LAYOUT = Layout(3, 2, 2, 256)
LENGTHS = (50, 100, 200, 300, 500, 1000, 2000)
ITEMS_A_STEP = 2000
MEMORY_ITEMS, RECOMPUTE, HISTORY, CANDIDATES, SOME = 1000, 100, 300, 1000, 50
ARCHS = ("flat", "hmat")
WITH_ALL, PAGE, KNOWN_ITEMS = (200, 300, 1000), 5, 20_000  # lengths, items of one time, items that have factors

Run = Callable[[], object]


def ranker(arch: str, recompute: int | None = None, factors: ItemFactors | None = None) -> nn.Module:
    """Dim 64, 2 layers, 2 heads, T = 7: the defaults; with ``factors`` also the memory of taste."""
    settings: dict[str, Any] = {"arch": arch, "max_items": max(LENGTHS), "dropout": 0, "recompute": recompute}
    settings["collaborative"] = {} if factors else None
    return build(RankerConfig.model_validate(settings), LAYOUT, factors=factors)


def some_factors() -> ItemFactors:
    """Random factors of :data:`KNOWN_ITEMS`, as many of an item as the defaults give with content."""
    config, generator = CollaborativeConfig(), torch.Generator().manual_seed(0)
    width, met = 2 + config.factors + config.content_components, config.met_components

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    return ItemFactors(
        torch.arange(KNOWN_ITEMS),
        normal(KNOWN_ITEMS + 1, width),
        torch.ones(KNOWN_ITEMS + 1),
        normal(width),
        normal(0, width),
        torch.ones(width),
        torch.ones(width),
        torch.tensor([0.0, 1.0]),
        normal(KNOWN_ITEMS + 1, met),
        normal(2 + met, width - 1),
    )


def windows(batch: int, items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random ``tokens`` (B, N, T), ``items`` and ``labels`` (B, N), int64."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, LAYOUT.codebook_size, (batch, items, LAYOUT.slots), generator=generator)
    labels = torch.randint(0, 2, (batch, items), generator=generator)
    return codes, torch.randint(0, KNOWN_ITEMS, (batch, items), generator=generator), labels


def in_pages(batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, None, Tensor]:
    """The same windows, of whose items each :data:`PAGE` share a time."""
    seen_BN = (torch.arange(batch[1].shape[1]) // PAGE * PAGE).expand_as(batch[1])
    return (*batch, None, seen_BN)


def training_pass(model: nn.Module, batch: tuple[Tensor | None, ...]) -> None:
    """Forward and backward."""
    model.zero_grad()
    model(*batch).sum().backward()


def compared(runs: dict[str, Run], turns: int) -> dict[str, Any]:
    """Median seconds of each by name, and of the first over the second the ratio in the ``turns``."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm
    for _ in range(turns):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    first, second = seconds.values()
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {**medians, "ratio": statistics.median(ratios), "least": ratios[0], "greatest": ratios[-1]}


def passes(items: int, turns: int, recompute: int | None = None) -> dict[str, Any]:
    """Forward and backward of about :data:`ITEMS_A_STEP` items in windows of ``items``."""
    batch = windows(max(1, ITEMS_A_STEP // items), items)
    runs: dict[str, Run] = {arch: partial(training_pass, ranker(arch, recompute), batch) for arch in ARCHS}
    return {"items": items} | compared(runs, turns)


def passes_with_all(items: int, turns: int) -> dict[str, Any]:
    """The same, the HMAT with its memory of taste and items that share their times."""
    batch = windows(max(1, ITEMS_A_STEP // items), items)
    runs: dict[str, Run] = {
        "flat": partial(training_pass, ranker("flat"), batch),
        "hmat": partial(training_pass, ranker("hmat", factors=some_factors()), in_pages(batch)),
    }
    return {"items": items} | compared(runs, turns)


def scoring(turns: int, *, with_all: bool = False) -> dict[str, Any]:
    """:data:`CANDIDATES` after :data:`HISTORY` items: the flat transformer's full passes, ten windows at once, and the
    HMAT's remembering and scoring. The flat one's are timed on :data:`SOME` of them, since each costs the same."""
    flat, hmat = ranker("flat").eval(), ranker("hmat", factors=some_factors() if with_all else None).eval()
    assert isinstance(hmat, HMAT)
    history, candidates = windows(1, HISTORY), windows(1, CANDIDATES)

    def full_passes() -> None:
        for ten in torch.arange(SOME).split(10):
            pairs = zip(history, candidates, strict=True)
            flat(*(torch.cat([old.expand(len(ten), *old.shape[1:]), new[0, ten, None]], 1) for old, new in pairs))

    past = in_pages(history) if with_all else history

    def remember_and_score() -> None:
        hmat.score(hmat.remember(*past), *candidates[:2])

    with torch.inference_mode():
        found = compared({"flat": full_passes, "hmat": remember_and_score}, turns)
        times = CANDIDATES / SOME
        scaled = {name: found[name] * times for name in ("flat", "ratio", "least", "greatest")}
        return found | scaled | {"memory_bytes": hmat.remember(*past).nbytes}


def peak_memory(arch: str, recompute: int | None) -> int:
    """Bytes that a training pass over one window of :data:`MEMORY_ITEMS` needs beyond one over ten items; call it in a
    process of its own."""
    model = ranker(arch, recompute)
    training_pass(model, windows(1, 10))
    before = _peak()
    training_pass(model, windows(1, MEMORY_ITEMS))
    return _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Seconds an item against the items of a window."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ranker_speed"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arch in ARCHS:
        per_step = [row[arch] / (max(1, ITEMS_A_STEP // row["items"]) * row["items"]) * 1e3 for row in rows]
        axes.plot([row["items"] for row in rows], per_step, marker="o", label=arch)
    axes.set(
        xscale="log", yscale="log", xlabel="items of a window", ylabel="milliseconds an item, forward and backward"
    )
    axes.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main(turns: int = 15, threads: int = 2, figure: Path = Path("docs/ranker_speed.svg")) -> None:
    """Print the table, draw ``figure`` and write ``results/ranker_speed.json``."""
    torch.set_num_threads(threads)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        memory = {
            name: dict(zip(ARCHS, pool.starmap(peak_memory, product(ARCHS, [step]), chunksize=1), strict=True))
            for name, step in {"kept": None, "recomputed": RECOMPUTE}.items()
        }
    rows = [passes(items, turns) for items in LENGTHS]
    found: dict[str, Any] = {
        "threads": threads,
        "passes": rows,
        "recomputed": passes(MEMORY_ITEMS, turns, RECOMPUTE),
        "peak_memory_bytes": memory,
        "scoring": scoring(turns),
        "with all": {"passes": [passes_with_all(n, turns) for n in WITH_ALL], "scoring": scoring(turns, with_all=True)},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ranker_speed.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(rows, figure)
    table = Table("items of a window", "flat, ms", "HMAT, ms", "flat / HMAT", title="forward and backward")
    again: dict[str, Any] = found["recomputed"] | {"items": f"{MEMORY_ITEMS}, computed again in stretches"}
    scored: dict[str, Any] = {"items": f"{CANDIDATES} candidates after {HISTORY}"} | found["scoring"]
    whole: list[dict[str, Any]] = [row | {"items": f"{row['items']}, with all"} for row in found["with all"]["passes"]]
    whole.append({"items": f"{CANDIDATES} candidates after {HISTORY}, with all"} | found["with all"]["scoring"])
    for row in [*rows, again, scored, *whole]:
        ratio = f"{row['ratio']:.2f} ({row['least']:.2f} to {row['greatest']:.2f})"
        table.add_row(str(row["items"]), f"{row['flat'] * 1e3:.0f}", f"{row['hmat'] * 1e3:.0f}", ratio)
    console = Console()
    console.print(table)
    for name, sizes in memory.items():
        megabytes = ", ".join(f"{arch} {size / 2**20:.0f} MiB" for arch, size in sizes.items())
        console.print(f"peak memory of a pass over {MEMORY_ITEMS} items, {name}: {megabytes}", highlight=False)
    console.print(f"memory of {HISTORY} items: {found['scoring']['memory_bytes'] / 1024:.0f} KiB", highlight=False)


if __name__ == "__main__":
    typer.run(main)

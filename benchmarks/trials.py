"""Trials of a benchmark, each a function of its name and seed: run in processes, kept in a file, summed up."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

RESULTS = Path(__file__).parent / "results"

Figures = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One run: of which method or ablation, on which data, with which seed."""

    data: str
    variant: str
    seed: int

    @property
    def key(self) -> str:
        """The trial as one word."""
        return f"{self.data}/{self.variant}/{self.seed}"


def run_trials(
    trials: Iterable[Trial], measure: Callable[[Trial], Figures], file: Path, processes: int
) -> dict[str, Figures]:
    """The figures of every trial by key; those that ``file`` has already are not run again.

    ``file`` holds a JSON object a line and grows by one with each trial that ends.
    """
    done = (
        {row["trial"]: row["figures"] for row in map(json.loads, file.read_text().splitlines())}
        if file.exists()
        else {}
    )
    waiting = [trial for trial in trials if trial.key not in done]
    file.parent.mkdir(parents=True, exist_ok=True)
    console, context = Console(stderr=True), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool, file.open("a") as results:
        running = {pool.submit(_timed, measure, trial): trial for trial in waiting}
        for number, future in enumerate(as_completed(running), start=1):
            trial = running[future]
            try:
                figures = future.result()
            except Exception:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            done[trial.key] = figures
            results.write(json.dumps({"trial": trial.key, "figures": figures}) + "\n")
            results.flush()
            console.print(f"{number} of {len(waiting)}: {trial.key}, {figures['seconds']:.0f} s")
    return done


def summary(
    results: Mapping[str, Figures], data: str, variants: Iterable[str], columns: Sequence[str], seeds: Sequence[int]
) -> Table:
    """Means over the seeds with half the width of their 95 % interval (Student's t), a row a variant."""
    table = Table("variant", "seeds", *columns, title=data)
    for variant in variants:
        runs = [results[key] for seed in seeds if (key := Trial(data, variant, seed).key) in results]
        if runs:
            table.add_row(variant, str(len(runs)), *(_interval([run[c] for run in runs if c in run]) for c in columns))
    return table


def paired(results: Mapping[str, Figures], data: str, a: str, b: str, column: str, seeds: Sequence[int]) -> str:
    """Mean of ``a`` less ``b`` by seed, with half the width of its 95 % interval."""
    return _interval([results[Trial(data, a, s).key][column] - results[Trial(data, b, s).key][column] for s in seeds])


def _interval(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{mean:.3f} ± {half:.3f}"


def _timed(measure: Callable[[Trial], Figures], trial: Trial) -> Figures:
    start = time.perf_counter()
    figures = measure(trial)
    return figures | {"seconds": time.perf_counter() - start}


def _one_thread() -> None:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)

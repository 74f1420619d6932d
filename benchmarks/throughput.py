"""Every job on a generated catalogue, each a process of its own: seconds, items a second, peak memory.

The catalogue is a Parquet file of texts of a few hundred different words and vectors of pictures; every user of the log
clicks what has a cluster of vectors that the user likes. Memory is what the processes of a job hold together, each
shared page counted once; Java's is shown apart, since it takes the heap that it is allowed before it cleans up.
``benchmarks.extract_throughput``, ``encode_throughput`` and ``tokenize_throughput`` set single jobs beside bare loops.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS

CHUNK = 100_000  # rows that are generated at once
WIDTH = 64  # numbers of a picture's vector
CLUSTERS = 400
WORDS = 600
EVENTS = 4  # of the log for every item
SAMPLE_SECONDS = 0.5
JOBS = {
    "extract": [],
    "encode": [],
    "train-tokenizer": [],
    "tokenize": [],
    "publish": [],
    "export": ["--to", "export"],
    "sequences": [],
    "train-ranker": [],
    "evaluate": [],
    "score": ["--users", "users.csv", "--candidates", "candidates.csv", "--to", "scores"],
}


@dataclass
class Cost:
    """Of one job: seconds from start to end, and the most bytes that Java and the other processes held."""

    seconds: float
    java: int
    others: int
    both: int


def generate(folder: Path, items: int) -> None:
    """Catalogue, log, lists of users and candidates, and a configuration in ``folder``."""
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnrs" for b in "aeiou" for c in ("ran", "lo", "mis", "tek", "")])
    words = np.concatenate([words, np.char.add(words, "ish"), np.char.add(words, "er")])[:WORDS]
    centres_CD = rng.standard_normal((CLUSTERS, WIDTH)).astype(np.float32)
    cluster_N = rng.integers(CLUSTERS, size=items)
    with pq.ParquetWriter(folder / "items.parquet", _catalogue_schema()) as file:
        for first in range(0, items, CHUNK):
            cluster_n = cluster_N[first : first + CHUNK]
            said_nW = rng.integers(WORDS, size=(len(cluster_n), 12))
            said_nW[:, :4] = (cluster_n[:, None] * 7 + np.arange(4)) % WORDS  # what its cluster has in common
            vectors_nD = centres_CD[cluster_n] + 0.5 * rng.standard_normal((len(cluster_n), WIDTH)).astype(np.float32)
            numbers = np.arange(first, first + len(cluster_n))
            file.write_table(
                pa.table(
                    {
                        "id": pa.array(_ids(numbers)),
                        "title": pa.array([" ".join(row) for row in words[said_nW]]),
                        "picture": pa.FixedSizeListArray.from_arrays(vectors_nD.ravel(), WIDTH),
                    },
                    schema=_catalogue_schema(),
                )
            )
    users = max(50, items // 10)
    with pq.ParquetWriter(folder / "log.parquet", _log_schema()) as file:
        for first in range(0, items * EVENTS, CHUNK):
            rows = min(CHUNK, items * EVENTS - first)
            user_n, item_n = rng.integers(users, size=rows), rng.integers(items, size=rows)
            likes_n = rng.random(rows) < np.where((cluster_N[item_n] + user_n) % 3 == 0, 0.7, 0.2)
            columns = [_ids(user_n), _ids(item_n), likes_n.astype(np.int8), 1_700_000_000 + first + np.arange(rows)]
            file.write_table(pa.table([pa.array(column) for column in columns], schema=_log_schema()))
    for name, column, count in (("users", "user_id", min(users, 1_000)), ("candidates", "item_id", min(items, 1_000))):
        (folder / f"{name}.csv").write_text("\n".join([column, *_ids(np.arange(count))]) + "\n")
    (folder / "hisam.yaml").write_text(yaml.safe_dump(_settings()))


def measured(job: str, folder: Path) -> Cost:
    """Run a job to its end.

    Raises:
        SystemExit: it failed, with what it said.
    """
    line = [sys.executable, "-c", "from jobs.cli import main; main()", job, "-c", "hisam.yaml", *JOBS[job]]
    cost = Cost(0, 0, 0, 0)
    with tempfile.TemporaryFile() as said:
        clock = time.perf_counter()
        process = subprocess.Popen(line, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            java, others = _held(process.pid)
            cost.java, cost.others = max(cost.java, java), max(cost.others, others)
            cost.both = max(cost.both, java + others)
            time.sleep(SAMPLE_SECONDS)
        cost.seconds = time.perf_counter() - clock
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{job} ended with {process.returncode}: {said.read().decode()[-2000:]}")
    return cost


def _held(pid: int) -> tuple[int, int]:
    """Bytes that a process and its descendants hold: Java, and the others."""
    java = others = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                held = process.memory_full_info().pss
                if process.name() == "java":
                    java += held
                else:
                    others += held
    return java, others


def _ids(numbers_N: np.ndarray) -> list[str]:
    return [f"n{number:09d}" for number in numbers_N.tolist()]


def _catalogue_schema() -> pa.Schema:
    picture = pa.list_(pa.float32(), WIDTH)
    return pa.schema({"id": pa.string(), "title": pa.string(), "picture": picture})


def _log_schema() -> pa.Schema:
    return pa.schema({"user": pa.string(), "item": pa.string(), "clicked": pa.int8(), "time": pa.int64()})


def _settings() -> dict[str, object]:
    return {
        "lake": "lake",
        "catalog": {"source": {"path": "items.parquet", "format": "parquet"}, "id": "id", "text": "{title}"},
        "interactions": {
            "source": {"path": "log.parquet", "format": "parquet"},
            "user": "user",
            "item": "item",
            "time": {"column": "time", "unit": "s"},
            "label": "clicked = 1",
        },
        "encoders": {"image": {"column": "picture", "name": "generated", "version": "1"}},
        "tokenizer": {"epochs": 2, "max_train_items": 50_000},  # how long training takes is a setting
        "ranker": {"epochs": 1},
        "gates": {"max_collision_rate": 1, "max_group": 1_000_000, "min_perplexity": 0, "max_code_share": 100_000},
    }


def main(
    items: Annotated[list[int] | None, typer.Option(help="Of a catalogue; may be repeated.")] = None,
    jobs: Annotated[list[str] | None, typer.Option(help="Default: all; those before it must have run.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where catalogues and lakes lie.")] = None,
) -> None:
    """Print a table of every catalogue and write ``results/throughput.json``."""
    found: dict[int, dict[str, Cost]] = {}
    for count in items or [100_000, 1_000_000]:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            generate(Path(scratch), count)
            found[count] = {}
            for job in jobs or JOBS:
                found[count][job] = measured(job, Path(scratch))
                typer.echo(f"{count:,} items, {job}: {found[count][job]}")
    written = {count: {job: vars(cost) for job, cost in costs.items()} for count, costs in found.items()}
    (RESULTS / "throughput.json").write_text(json.dumps(written, indent=1) + "\n")
    for count, costs in found.items():
        table = Table("job", "s", "items a second", "Java, MB", "others, MB", "together, MB", title=f"{count:,} items")
        for job, cost in costs.items():
            sizes = (f"{size / 1e6:,.0f}" for size in (cost.java, cost.others, cost.both))
            table.add_row(job, f"{cost.seconds:.1f}", f"{count / cost.seconds:,.0f}", *sizes)
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)

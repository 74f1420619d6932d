"""What a night costs against the first full run: an unchanged catalogue, and one of which 1 % changed.

A catalogue is generated, brought to a release, left alone for a night, and changed: a quarter each new items, edited
texts, edited pictures, deletions. Work is the seconds of the jobs' phases; what a job takes besides is the start of its
engine. Encoder calls are checked against the texts and pictures that the lake had never seen; IDs of items that did
not change must not move.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from jobs.encode import run_encode
from jobs.extract import run_extract
from jobs.nightly import run_nightly
from jobs.publish import run_publish
from jobs.tokenize import run_tokenize
from jobs.train_tokenizer import run_train_tokenizer
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.lake.phases import RAY_START, REST, SPARK_START
from pipeline.lake.storage import Lake
from pipeline.on_ray.session import ray_session
from pipeline.on_spark.session import spark_session
from schemas.tables import ITEMS, RELEASED_IDS, TABLES

NO_WORK = ("total", REST, SPARK_START, RAY_START)  # of a record's seconds
JOBS = ("extract", "encode", "tokenize", "publish")


@dataclass(frozen=True)
class Night:
    """One run: seconds of work by job, seconds of starting engines, bytes written to tables, encoder calls."""

    work: dict[str, float]
    starting: float
    wall: float
    written: int
    texts_encoded: int
    images_encoded: int
    texts_unseen: int
    images_unseen: int
    moved: int

    @property
    def seconds(self) -> float:
        """Work of all jobs."""
        return sum(self.work.values())


def measured(config: Config, night: Any) -> Night:
    """Run ``night`` and see what it did."""
    lake = Lake(config.lake)
    before, seen, ids = _bytes(lake), _seen(lake), _ids(lake)
    clock = time.perf_counter()
    night()
    wall = time.perf_counter() - clock
    records = [_record(lake, job) for job in JOBS]
    phases = {r["job"]: sum(s for name, s in r["seconds"].items() if name not in NO_WORK) for r in records}
    counts = records[1]["counts"]
    after = _ids(lake)
    kept = after.keys() & ids.keys()
    unseen = {name: len(found - seen[name]) for name, found in _seen(lake).items()}
    return Night(
        work=phases,
        starting=sum(r["seconds"]["total"] for r in records) - sum(phases.values()),
        wall=wall,
        written=_bytes(lake) - before,
        texts_encoded=counts.get("texts_encoded", 0),
        images_encoded=counts.get("images_encoded", 0),
        texts_unseen=unseen["text_sha"],
        images_unseen=unseen["image_sha"],
        moved=sum(after[item] != ids[item] for item in kept),
    )


def first_run(config: Config) -> None:
    """From the raw catalogue to the first release."""
    with spark_session(config.spark, "benchmark"), ray_session(config.ray):
        run_extract(config)
        run_encode(config)
        tokenizer = run_train_tokenizer(config)
        run_tokenize(config, tokenizer)
        run_publish(config, tokenizer)


def main(
    items: Annotated[int, typer.Option(help="Of the generated catalogue.")] = 100_000,
    changed: Annotated[float, typer.Option(help="The share that changes before the last night.")] = 0.01,
    text_model: Annotated[str, typer.Option(help="Folder of a text encoder in place of the built-in one.")] = "builtin",
    folder: Annotated[Path | None, typer.Option(help="Keep catalogue and lake there.")] = None,
) -> None:
    """Print the table and write ``results/incremental.json``."""
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        shutil.rmtree(home / "lake", ignore_errors=True)
        generate(home, items, users=1, seed=0)
        settings = ["gates.max_collision_rate=1", "gates.min_perplexity=0", "gates.max_code_share=100000"]
        settings += ["tokenizer.max_train_items=20000", "tokenizer.epochs=3"]  # training is not what is measured
        config = load_config(home / "config.yaml", [*settings, f"encoders.text.model={text_model}"])
        nights = {"first run": measured(config, lambda: first_run(config))}
        nights["nothing changed"] = measured(config, lambda: run_nightly(config))
        changes = mutate(home, changed, seed=1)
        nights[f"{changed:.0%} changed"] = measured(config, lambda: run_nightly(config))
    full, *_, last = nights.values()
    found = {"items": items, "changes": {kind: len(ids) for kind, ids in changes.items()}}
    found |= {name: vars(night) | {"seconds": night.seconds} for name, night in nights.items()}
    found |= {"work_ratio": last.seconds / full.seconds, "bytes_ratio": last.written / full.written}
    found |= {"idle_ratio": nights["nothing changed"].seconds / full.seconds, "text_model": Path(text_model).name}
    name = "incremental" if text_model == "builtin" else f"incremental_{Path(text_model).name}"
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    table = Table("", *nights, title=f"{items:,} items")
    for job in JOBS:
        table.add_row(f"{job}, s", *(f"{night.work[job]:.1f}" for night in nights.values()))
    table.add_row("work, s", *(f"{n.seconds:.1f} ({n.seconds / full.seconds:.1%})" for n in nights.values()))
    table.add_row("wall, s, training too", *(f"{night.wall:.1f}" for night in nights.values()))
    table.add_row("engines starting, s", *(f"{night.starting:.1f}" for night in nights.values()))
    table.add_row(
        "written to tables", *(f"{n.written / 1e6:.1f} MB ({n.written / full.written:.1%})" for n in nights.values())
    )
    for kind in ("texts", "images"):
        calls = ((vars(n)[f"{kind}_encoded"], vars(n)[f"{kind}_unseen"]) for n in nights.values())
        table.add_row(f"{kind} encoded (never seen)", *(f"{done:,} ({unseen:,})" for done, unseen in calls))
    table.add_row("IDs moved", *(str(night.moved) for night in nights.values()))
    Console().print(table)


def _record(lake: Lake, job: str) -> dict[str, Any]:
    """The newest run record of a job."""
    runs = [name for name in lake.names("runs") if f"{job}.json" in lake.names(f"runs/{name}")]
    return json.loads(Path(lake.path(f"runs/{runs[-1]}/{job}.json")).read_text())


def _bytes(lake: Lake) -> int:
    files = (file for table in TABLES for file in Path(lake.path(table)).rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def _seen(lake: Lake) -> dict[str, set[str]]:
    rows = lake.read(ITEMS, ["text_sha", "image_sha"])
    return {name: set(rows[name].drop_null().to_pylist()) for name in rows.schema.names}


def _ids(lake: Lake) -> dict[tuple[str, str], tuple[str, int]]:
    """Released ID by item and content."""
    if not lake.exists(RELEASED_IDS):
        return {}
    rows = lake.released_ids().to_table(["item_id", "content", "sid", "item_hash"]).to_pylist()
    return {(row["item_id"], row["content"]): (row["sid"], row["item_hash"]) for row in rows}


if __name__ == "__main__":
    typer.run(main)

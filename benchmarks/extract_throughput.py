"""How fast ``extract`` makes items of pictures, beside a bare loop over the same files.

The pictures are JPEGs whose longer side is 200 to 2,000 pixels, as many of each octave, cut from textures that look
like photographs to the codec. The bare loop is two processes of Pillow that read, decode, normalise and encode as
:func:`pipeline.on_spark.pictures.normalise` promises, and write the pictures to Parquet with their names: no hashes, no
checks, no tables. The job is a process of its own, on an empty lake each time; the two take turns.
"""

import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from pipeline.config.file import load_config
from pipeline.lake.phases import REST, SPARK_START
from pipeline.lake.storage import Lake

PROCESSES = 2
SIDES = (200, 2000)
SHAPES = ((1, 1), (4, 3), (3, 2), (3, 4))
SIZE, QUALITY = 256, 90  # of the form
TEXTURES = 4
BATCH = 256

Figures = dict[str, float]


def texture(seed: int) -> Image.Image:
    """A square of the longest side: grey grain of every scale with a little colour, the coarse the strongest."""
    rng, side = np.random.default_rng(seed), SIDES[1]
    total = np.zeros((side, side, 3), np.float32)
    for octave in range(2, 11):
        grain = rng.normal(0, 1, (4, 2**octave, 2**octave)).astype(np.float32)
        grey, *colours = (np.asarray(Image.fromarray(g).resize((side, side), Image.Resampling.BICUBIC)) for g in grain)
        total += 0.8**octave * (grey[..., None] + 0.5 * np.stack(colours, axis=-1))
    return Image.fromarray((128 + 50 * total / total.std()).clip(0, 255).astype(np.uint8))


def draw(numbers: range, folder: Path, seed: int) -> int:
    """Write the pictures of ``numbers``, each a function of its number and the seed; bytes of them all."""
    textures = [texture(seed * TEXTURES + i) for i in range(TEXTURES)]
    written = 0
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        longer = SIDES[0] * (SIDES[1] / SIDES[0]) ** rng.random()
        shape = SHAPES[rng.integers(len(SHAPES))]
        width, height = (max(1, round(longer * side / max(shape))) for side in shape)
        left, top = rng.integers(SIDES[1] - width + 1), rng.integers(SIDES[1] - height + 1)
        cut = textures[rng.integers(TEXTURES)].crop((left, top, left + width, top + height))
        path = folder / f"{number % 100:02d}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        cut.save(path, quality=85)
        written += path.stat().st_size
    return written


def bare_loop(part: int, folder: Path, target: Path) -> int:
    """Every :data:`PROCESSES`-th picture, normalised and written; how many."""
    files = sorted(folder.rglob("*.jpg"))[part::PROCESSES]
    schema = pa.schema({"name": pa.string(), "image": pa.binary()})
    with pq.ParquetWriter(target / f"{part}.parquet", schema) as out:
        for at in range(0, len(files), BATCH):
            batch = files[at : at + BATCH]
            rows = {"name": [file.name for file in batch], "image": [normalised(file.read_bytes()) for file in batch]}
            out.write_table(pa.table(rows))
    return len(files)


def normalised(data: bytes) -> bytes:
    """The form of a JPEG by Pillow's own means: ``thumbnail`` decodes at a fraction where that is enough."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        upright = ImageOps.exif_transpose(image).convert("RGB")
    target = io.BytesIO()
    upright.info = {}
    upright.save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


def run_bare(pool: ProcessPoolExecutor, home: Path) -> Figures:
    """Seconds of the bare loop, in processes that have started already."""
    target = home / "bare"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    clock = time.perf_counter()
    list(pool.map(partial(bare_loop, folder=home / "pictures", target=target), range(PROCESSES)))
    return {"bare": time.perf_counter() - clock}


def run_job(home: Path) -> Figures:
    """Seconds of one ``extract`` into an empty lake: by phase, of all phases, and of the process."""
    shutil.rmtree(home / "lake", ignore_errors=True)
    clock = time.perf_counter()
    command = [sys.executable, "-m", "jobs", "extract", "-c", str(home / "hisam.yaml")]
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - clock
    lake = Lake(load_config(home / "hisam.yaml").lake)
    (run,) = lake.names("runs")
    phases: Figures = json.loads(Path(lake.path(f"runs/{run}/extract.json")).read_text())["seconds"]
    for no_work in ("total", SPARK_START, REST):
        phases.pop(no_work)
    return phases | {"phases": sum(phases.values()), "process": wall}


def catalogue(home: Path, items: int, pool: ProcessPoolExecutor, seed: int) -> int:
    """Pictures, items and configuration below ``home``, unless they are there; bytes of the pictures."""
    folder = home / "pictures"
    if not folder.exists():
        folder.mkdir(parents=True)
        parts = [range(part, items, PROCESSES) for part in range(PROCESSES)]
        list(pool.map(partial(draw, folder=folder, seed=seed), parts))
    rows = [{"id": str(i), "title": f"item {i}", "picture": f"{i % 100:02d}/{i}.jpg"} for i in range(items)]
    pq.write_table(pa.Table.from_pylist(rows), home / "items.parquet")
    catalog = {"source": {"path": "items.parquet", "format": "parquet"}, "id": "id", "text": "{title}"}
    catalog["image"] = {"column": "picture", "root": "pictures", "size": SIZE}
    (home / "hisam.yaml").write_text(json.dumps({"lake": "lake", "catalog": catalog}))
    return sum(file.stat().st_size for file in folder.rglob("*.jpg"))


def taking_turns(works: list[Callable[[], Figures]], runs: int) -> Iterator[Figures]:
    """The figures of every run, first of one then of the other, the order turned round each time."""
    for run in range(runs):
        found: Figures = {}
        for work in works[:: 1 if run % 2 else -1]:
            found |= work()
        yield found


def main(
    items: Annotated[int, typer.Option(help="Pictures.")] = 20_000,
    runs: Annotated[int, typer.Option(help="Of each, in turn.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Keep pictures there, and take those that are there.")] = None,
) -> None:
    """Print the table and write ``results/extract_throughput.json``."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool,
    ):
        home = folder or Path(scratch)
        size = catalogue(home, items, pool, seed)
        run_bare(pool, home)  # so that files and code are in memory
        timed = list(taking_turns([lambda: run_bare(pool, home), lambda: run_job(home)], runs))
    medians = {name: statistics.median(run[name] for run in timed) for name in timed[0]}
    ratios = {name: statistics.median(run["bare"] / run[name] for run in timed) for name in timed[0]}
    found = {"items": items, "picture_bytes": size, "runs": timed, "medians": medians, "ratios": ratios}
    (RESULTS / "extract_throughput.json").write_text(json.dumps(found, indent=1) + "\n")
    title = f"{items:,} JPEGs, {size / 1e6:,.0f} MB"
    table = Table("", "seconds", "least", "most", "pictures a second", "of the bare loop's speed", title=title)
    for name, seconds in medians.items():
        each = [run[name] for run in timed]
        shown = (f"{s:.1f}" for s in (seconds, min(each), max(each)))
        table.add_row(name, *shown, f"{items / seconds:.0f}", f"{ratios[name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

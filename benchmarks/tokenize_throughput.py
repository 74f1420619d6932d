"""``hisam tokenize`` beside a bare loop over the same vectors, and the quantiser beside faiss's.

The lake has items whose texts and pictures are random vectors of 384 and 512 numbers, and a DST of the default shape:
networks as they begin, codebooks of k-means over what they make of some of the vectors. The bare loop reads the plan's
Parquet with pyarrow, makes tensors of it and encodes them, in one process on all cores. The job runs beside it from the
same plan (its Ray half). "Whole" is the sum of its phases, each timed once, not a run of the command. All
comparisons alternate, and medians
count, since machines differ from minute to minute.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from pipeline.config.models import Config
from pipeline.lake.artefacts import store
from pipeline.lake.commit import append
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.on_ray.session import ray_session
from pipeline.on_ray.tokenize import COLUMNS, load_tokenizer, tokenize
from pipeline.on_ray.vector_columns import to_column, to_matrix
from pipeline.on_spark.plans import plan_tokenizing
from pipeline.on_spark.session import spark_session
from schemas.tables import ITEMS, VECTORS
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings
from tokenizer.base.tokenizer import Encoder
from tokenizer.dst.model import DST
from tokenizer.dst.objective import DSTObjective
from tokenizer.quantisation.quantiser import ResidualQuantiser

WIDTHS = {"text": 384, "image": 512}
ENCODERS = {"text": "a" * 16, "image": "b" * 16}
ROWS = 20_000  # generated at once
LEVELS, DIM, BITS = 7, 64, 8
BATCH = 4096


def against_faiss(vectors: int, runs: int) -> dict[str, dict[str, float]]:
    """Vectors a second of both quantisers over the same codebooks, by threads and beam; and whether codes are equal."""
    x_ND = np.random.default_rng(0).standard_normal((vectors, DIM)).astype(np.float32)
    theirs = faiss.ResidualQuantizer(DIM, LEVELS, BITS)
    theirs.train(x_ND[:10_000])
    ours = ResidualQuantiser(LEVELS, 2**BITS, DIM)
    ours.codebooks_LKD.copy_(torch.from_numpy(faiss.vector_to_array(theirs.codebooks)).view_as(ours.codebooks_LKD))
    found, threads_before = {}, torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        for beam in (1, 5):
            theirs.max_beam_size = beam
            kept: dict[str, Any] = {}

            def encode_ours(beam: int = beam, kept: dict[str, Any] = kept) -> None:
                blocks = torch.from_numpy(x_ND).split(BATCH)
                kept["ours"] = torch.cat([ours.search(x, x.new_zeros(len(x)), beam)[0] for x in blocks])

            def encode_theirs(lut: int, kept: dict[str, Any] = kept) -> None:
                theirs.use_beam_LUT = lut
                kept["theirs"] = theirs.compute_codes(x_ND)

            ways = {
                "ours": encode_ours,
                "faiss": lambda: encode_theirs(0),
                "faiss with tables": lambda: encode_theirs(1),
            }
            seconds = _alternating(ways, runs)
            rates = {way: vectors / median for way, median in seconds.items()}
            equal = (kept["ours"].numpy() == kept["theirs"]).all(axis=1).mean()
            found[f"{threads} threads, beam {beam}"] = rates | {"equal codes": float(equal)}
    torch.set_num_threads(threads_before)
    return found


def build(config: Config, items: int) -> str:
    """A lake of so many items, their vectors and a tokenizer, whose fingerprint it is."""
    rng = np.random.default_rng(0)
    with Run("extract", config) as run:
        for first in range(0, items, ROWS):
            numbers = range(first, min(items, first + ROWS))
            shas = {m: [f"{m}{number:058d}" for number in numbers] for m in WIDTHS}
            columns: dict[str, Any] = {
                "item_id": [f"item-{number:09d}" for number in numbers],
                "run_id": [run.run_id] * len(numbers),
                "deleted": [False] * len(numbers),
                "extracted_at": pa.array([run.started] * len(numbers), ITEMS.schema.field("extracted_at").type),
            }
            columns |= {f"{m}_sha": of for m, of in shas.items()}
            append(run.lake, ITEMS, _table(columns, ITEMS.schema))
            for m, width in WIDTHS.items():
                x_ND = rng.standard_normal((len(numbers), width), np.float32)
                vectors = {"encoder": [ENCODERS[m]] * len(numbers), "sha": shas[m]}
                vectors |= {"vector": to_column(x_ND, np.ones(len(x_ND), bool))}
                append(run.lake, VECTORS, _table(vectors, VECTORS.schema))
        with tempfile.TemporaryDirectory() as folder:
            fingerprint = artefact.save(tokenizer(), Path(folder), {}, ENCODERS)
            store(run.lake, "tokenizers", Path(folder), fingerprint)
    return fingerprint


def tokenizer() -> DST:
    """A DST of the default shape whose codebooks fit random vectors."""
    torch.manual_seed(0)
    model, has_N = DST(TokenizerConfig(), *WIDTHS.values()), torch.ones(ROWS, dtype=torch.bool)
    text_ND, image_ND = (torch.randn(ROWS, width) for width in WIDTHS.values())
    items = Embeddings(text_ND, image_ND, has_N, has_N).normalised()
    for m in WIDTHS:
        model.standardiser(m).learn(items.vectors(m))
    model.seen_2.fill_(True)
    objective = DSTObjective(model)
    objective.initialise(model.eval(), objective.learners(model), lambda _: items)
    return model


def bare(run: Run, plan: Plan, fingerprint: str) -> float:
    """Seconds of the loop without Ray, the tokenizer's loading left out."""
    encode = Encoder(load_tokenizer(run.lake, fingerprint).model)
    clock = time.perf_counter()
    for chunk in range(plan.chunks):
        for part in plan.parts(run.lake, chunk):
            for batch in pq.ParquetFile(part, filesystem=run.lake.filesystem).iter_batches(BATCH, columns=COLUMNS):
                read = [to_matrix(batch[f"{m}_vector"], m, width) for m, width in WIDTHS.items()]
                (text_ND, has_text_N), (image_ND, has_image_N) = read
                encode(*map(torch.from_numpy, (text_ND, image_ND, has_text_N, has_image_N)))
    return time.perf_counter() - clock


def measure(config: Config, items: int, runs: int) -> dict[str, Any]:
    """Seconds of planning, of Ray's start, and of both ways by run."""
    fingerprint = build(config, items)
    clock = time.perf_counter()
    with spark_session(config.spark, "tokenize") as spark:
        found: dict[str, Any] = {"Spark starts, s": time.perf_counter() - clock}
        with Run("tokenize", config) as run:
            clock = time.perf_counter()
            plan = plan_tokenizing(spark, run, "tokenize", fingerprint, ENCODERS)
            found["planning, s"] = time.perf_counter() - clock
    clock = time.perf_counter()
    with ray_session(config.ray):
        found["Ray starts, s"] = time.perf_counter() - clock
        seconds: dict[str, list[float]] = {"bare": [], "job": []}
        for number in range(runs + 1):
            with Run("tokenize", config) as run:
                # The same rows again, as another plan's, so that their commit is not taken for one that is done.
                again = Plan(plan.job, run.run_id, plan.rows, plan.chunks, plan.facts)
                source, target = (run.lake.path(each.folder) for each in (plan, again))
                Path(target).parent.mkdir(parents=True)
                Path(target).symlink_to(Path(source).resolve())
                bare_seconds = bare(run, plan, fingerprint)
                clock = time.perf_counter()
                tokenize(run, again)
                job_seconds = time.perf_counter() - clock
            if number == 0:  # workers start, and import what they need
                found["first job, s"] = job_seconds
                continue
            seconds["bare"].append(bare_seconds)
            seconds["job"].append(job_seconds)
    median = {way: statistics.median(took) for way, took in seconds.items()}
    found |= {f"{way}, items a second": items / took for way, took in median.items()}
    found |= {"seconds": seconds, "job by bare": median["bare"] / median["job"]}
    whole = found["Spark starts, s"] + found["planning, s"] + found["Ray starts, s"] + found["first job, s"]
    return found | {"whole, items a second": items / whole}


def _alternating(ways: Mapping[str, Callable[[], None]], runs: int) -> dict[str, float]:
    """The median seconds of each way, one after the other and again; a first round does not count."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs + 1):
        for way, work in ways.items():
            clock = time.perf_counter()
            work()
            took[way].append(time.perf_counter() - clock)
    return {way: statistics.median(seconds[1:]) for way, seconds in took.items()}


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    count = len(next(iter(columns.values())))
    absent = {name: pa.nulls(count, schema.field(name).type) for name in schema.names if name not in columns}
    return pa.table(columns | absent).select(schema.names).cast(schema)


def main(
    items: Annotated[int, typer.Option(help="Of the lake; 0 leaves the job out.")] = 200_000,
    vectors: Annotated[int, typer.Option(help="For the quantisers.")] = 40_000,
    runs: Annotated[int, typer.Option(help="Of each, beside one that does not count.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where the lake lies.")] = None,
) -> None:
    """Print both tables and write ``results/tokenize_throughput.json``."""
    found: dict[str, Any] = {"items": items, "quantisers": against_faiss(vectors, runs)}
    table = Table("vectors a second", "ours", "faiss", "faiss with tables", "equal codes")
    for case, rates in found["quantisers"].items():
        *speeds, equal = rates.values()
        table.add_row(case, *(f"{speed:,.0f}" for speed in speeds), f"{equal:.2%}")
    Console().print(table)
    if items:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source = {"path": scratch, "format": "csv"}
            catalog = {"source": source, "id": "id", "text": "{t}"}
            config = Config.model_validate({"lake": f"{scratch}/lake", "catalog": catalog})
            found["job"] = measure(config, items, runs)
        Console().print_json(json.dumps(found["job"]))
    (RESULTS / "tokenize_throughput.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

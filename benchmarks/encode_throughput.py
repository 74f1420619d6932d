"""How fast inputs reach a model, beside bare loops, and how fast ``encode`` is beside a bare loop over its model.

*Feed rate*: the stages of ``encode`` with a model that costs nothing, beside loops that only decode and resize, or only
tokenise, as many processes as cores. *Encode*: the whole job on a lake, beside loops over the same model. Both count
from when everything is loaded and running. Loops and stages take turns in one run; medians are told.
"""

import io
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.encoder_inputs import jpegs, texts, vision_transformer
from benchmarks.trials import RESULTS
from pipeline.config.encoders import Encoder
from pipeline.config.file import load_config
from pipeline.config.models import Config, RaySettings
from pipeline.lake.commit import append
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.on_ray.deaths import start_ledger
from pipeline.on_ray.encode import encode, encoded
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.encoders.load import load_encoder
from pipeline.on_ray.encoders.token_batches import Batch
from pipeline.on_ray.session import ray_session
from schemas.tables import ITEMS

WARM = 0.1  # of the rows come before the clock starts
BATCH = 64
PART_ROWS = 1_000


class Costless:
    """The host's half of an encoder, and in place of its model nothing."""

    def __init__(self, encoder: Any) -> None:
        self.prepare = encoder.prepare

    def embed(self, batch: Batch) -> np.ndarray:
        """Of ones."""
        return np.ones((len(next(iter(batch.values()))), 2), np.float32)

    def fetch(self, x_ND: np.ndarray) -> np.ndarray:
        """They are here."""
        return x_ND


def costless(modality: str, settings: Encoder, device: str | None) -> Any:
    """Loads no weights."""
    return Costless(load_encoder(modality, settings, None))


class Told:
    """Loads an encoder and leaves a file when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, modality: str, settings: Encoder, device: str | None) -> Any:
        """The encoder."""
        encoder = load_encoder(modality, settings, device)
        (self._folder / f"{os.getpid()}").touch()
        return encoder


def lake_of(home: Path, modality: str, model: str, inputs: Sequence[Any]) -> Config:
    """A lake whose items have these inputs of one modality."""
    home.mkdir()
    catalog = {"source": {"path": "none.json", "format": "json"}, "id": "id", "text": "{title}"}
    encoders = {modality: {"model": model, "batch_size": BATCH}}
    (home / "hisam.yaml").write_text(json.dumps({"lake": "lake", "catalog": catalog, "encoders": encoders}))
    config = load_config(home / "hisam.yaml")
    with Run("extract", config) as run:
        rows = [
            {"item_id": str(n), "run_id": run.run_id, modality: value, f"{modality}_sha": f"{n:064x}"}
            | {"deleted": False, "extracted_at": 0}
            for n, value in enumerate(inputs)
        ]
        append(run.lake, ITEMS, pa.Table.from_pylist(rows, schema=ITEMS.schema))
    return config


def planned(run: Run, modality: str) -> Plan:
    """Everything in the lake, as Spark would plan it."""
    lake = run.lake
    plan = Plan("encode", run.run_id, 0, 1, {"encoders": encoder_fingerprints(run.config.encoders)})
    for number, file in enumerate(lake.delta(ITEMS).file_uris()):
        name = file.rpartition(f"/{ITEMS.name}/")[2]
        shas = pq.read_table(file, columns=[f"{modality}_sha"])[0]
        for position in range(0, len(shas), PART_ROWS):
            part = shas.slice(position, PART_ROWS)
            places = pa.array(range(position, position + len(part)), pa.int64())
            folder = Path(lake.uri) / plan.folder / f"chunk=0/modality={modality}/part={number}-{position}"
            folder.mkdir(parents=True)
            rows = pa.table({"sha": part, "file": [name] * len(part), "position": places})
            pq.write_table(rows, folder / "rows.parquet")
    rows_in = sum(pq.read_metadata(part).num_rows for part in plan.parts(lake, 0))
    return Plan(plan.job, plan.run_id, rows_in, 1, plan.facts)


def fed(config: Config, modality: str) -> float:
    """Rows a second that reach a model that costs nothing, after the first tenth."""
    with Run("encode", config) as run:
        plan = planned(run, modality)
        rows = encoded(run, modality, plan.parts(run.lake, 0), start_ledger(), costless)
        arrived = [
            (time.perf_counter(), len(block["sha"]))
            for block in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        ]
    seen_B = np.cumsum([count for _, count in arrived])
    first = int(np.searchsorted(seen_B, WARM * seen_B[-1]))
    return float((seen_B[-1] - seen_B[first]) / (arrived[-1][0] - arrived[first][0]))


def encoding_rate(config: Config, modality: str, scratch: Path) -> float:
    """Rows a second of the whole job, from when its workers have their models to its commit."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with Run("encode", config) as run:
        plan = planned(run, modality)
        encode(run, plan, Told(folder))
        ended = time.time()
    started = [file.stat().st_mtime for file in folder.iterdir()]
    return plan.rows / (ended - sum(started) / len(started))


def _loop(work: Callable[[Sequence[Any]], Callable[[], object]], inputs: Sequence[Any], ready: Any) -> float:
    """Seconds of a loop in a process of its own, which waits until all others are ready."""
    torch.set_num_threads(1)
    loop = work(inputs)
    ready.wait()
    clock = time.perf_counter()
    loop()
    return time.perf_counter() - clock


def bare(work: Callable[[Sequence[Any]], Callable[[], object]], inputs: Sequence[Any], cores: int) -> float:
    """Rows a second of a loop over the inputs, in as many processes as cores; the slowest counts."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(cores, context) as pool:
        ready = manager.Barrier(cores)
        loops = [pool.submit(_loop, work, inputs[first::cores], ready) for first in range(cores)]
        return len(inputs) / max(loop.result() for loop in loops)


def decoding(inputs: Sequence[bytes]) -> Callable[[], object]:
    """Decode and resize, no more."""

    def loop() -> None:
        for batch in _batches(inputs):
            small = [Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), 2) for data in batch]
            np.stack([np.asarray(picture) for picture in small])

    return loop


def tokenising(model: str, inputs: Sequence[str]) -> Callable[[], object]:
    """Tokenise and pad, no more, sorted by length."""
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = AutoTokenizer.from_pretrained(model)

    def loop() -> None:
        for batch in _batches(sorted(inputs, key=len)):
            tokenizer(list(batch), padding=True, truncation=True, max_length=256, return_tensors="np")

    return loop


def encoding_texts(model: str, inputs: Sequence[str]) -> Callable[[], object]:
    """The library's own loop, which sorts by length."""
    from sentence_transformers import SentenceTransformer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loaded = SentenceTransformer(model, device="cpu")
    loaded.encode(list(inputs[:BATCH]))
    return partial(loaded.encode, list(inputs), batch_size=BATCH, show_progress_bar=False)


@torch.inference_mode()
def encoding_pictures(model: str, inputs: Sequence[bytes]) -> Callable[[], object]:
    """Decode, process, run."""
    from transformers import AutoImageProcessor, AutoModel

    processor, loaded = (
        AutoImageProcessor.from_pretrained(model, backend="pil"),
        AutoModel.from_pretrained(model).eval(),
    )

    @torch.inference_mode()
    def loop() -> None:
        for batch in _batches(inputs):
            pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch]
            loaded(**processor(images=pictures, return_tensors="pt")).pooler_output.numpy()

    return loop


def _batches(inputs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (inputs[first : first + BATCH] for first in range(0, len(inputs), BATCH))


def by_cores(cores: int, pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]], runs: int) -> Any:
    """Medians of both of each pair, measured in turn, and of their ratios, on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    found = {}
    with ray_session(RaySettings()):
        for name, (loop, stages) in pairs.items():
            rates = [(loop(), stages()) for _ in range(runs)]
            loops, staged = zip(*rates, strict=True)
            ratios = [mine / other for other, mine in rates]
            found[name] = {
                "cores": cores,
                "bare_per_second": median(loops),
                "ours_per_second": median(staged),
                "ratio": median(ratios),
                "ratios": [min(ratios), max(ratios)],
            }
            print(f"{name}, {cores} cores: {found[name]}", flush=True)
    return found


def _measure(settings: dict[str, Any], cores: int) -> dict[str, dict[str, Any]]:
    text_model, runs = settings["text_model"], settings["runs"]
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        vit = vision_transformer(home / "vit")
        pairs: dict[str, Any] = {}
        if settings["feed"]:
            pictures, words = jpegs(settings["feed"]), texts(settings["feed"], text_model)
            shown = lake_of(home / "feed-image", "image", vit, pictures)
            said = lake_of(home / "feed-text", "text", text_model, words)
            pairs["feed pictures"] = (partial(bare, decoding, pictures, cores), partial(fed, shown, "image"))
            loop = partial(bare, partial(tokenising, text_model), words, cores)
            pairs["feed texts"] = (loop, partial(fed, said, "text"))
        if settings["texts"]:
            words = texts(settings["texts"], text_model)
            said = lake_of(home / "text", "text", text_model, words)
            loop = partial(bare, partial(encoding_texts, text_model), words, cores)
            pairs["encode texts"] = (loop, partial(encoding_rate, said, "text", home))
        if settings["pictures"]:
            pictures = jpegs(settings["pictures"])
            shown = lake_of(home / "image", "image", vit, pictures)
            loop = partial(bare, partial(encoding_pictures, vit), pictures, cores)
            pairs["encode pictures"] = (loop, partial(encoding_rate, shown, "image", home))
        return by_cores(cores, pairs, runs)


def main(
    text_model: Annotated[str, typer.Option(help="The folder of a model of BERT's kin, such as all-MiniLM-L6-v2.")],
    feed: Annotated[int, typer.Option(help="Pictures and texts whose feed rate is measured; 0: none.")] = 20_000,
    texts: Annotated[int, typer.Option(help="Texts that are encoded; 0: none.")] = 4_000,
    pictures: Annotated[int, typer.Option(help="Pictures that are encoded; 0: none.")] = 384,
    cores: Annotated[list[int] | None, typer.Option(help="Each is measured; default: 1 and all.")] = None,
    runs: Annotated[int, typer.Option(help="Of each loop and each pipeline, in turn.")] = 5,
) -> None:
    """Print the table and write ``results/encode_throughput.json``."""
    settings = {"text_model": text_model, "feed": feed, "texts": texts, "pictures": pictures, "runs": runs}
    table = Table("", "cores", "bare loop, rows/s", "ours, rows/s", "ratio", "ratios")
    found: dict[str, Any] = {}
    for count in cores or sorted({1, len(os.sched_getaffinity(0))}):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            measured = pool.submit(_measure, settings, count).result()
        for name, row in measured.items():
            found[f"{name}, {count} cores"] = row
            rates = (f"{row['bare_per_second']:.1f}", f"{row['ours_per_second']:.1f}", f"{row['ratio']:.3f}")
            table.add_row(name, str(count), *rates, "{:.3f} to {:.3f}".format(*row["ratios"]))
    settings["text_model"] = Path(text_model).name
    (RESULTS / "encode_throughput.json").write_text(json.dumps(settings | found, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    from benchmarks.encode_throughput import main  # under its own name, by which other processes find what is here

    typer.run(main)

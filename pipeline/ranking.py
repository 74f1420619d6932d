"""Train a ranker on the lake's sequences with Ray Train, and measure it on the test period."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray
import ray.data
from ray.train import TrainingFailedError

from pipeline.artefacts import local_folder, store, tokenizer_layout
from pipeline.errors import JobError
from pipeline.lake import Lake
from pipeline.ranker_scoring import predict
from pipeline.ranker_training import train
from pipeline.ray_session import gpus, read_files
from pipeline.releases import require_release
from pipeline.run import Run
from ranker.artefact import ArtefactError, load
from ranker.evaluation import report
from ranker.training import EpochFigures
from schemas.tables import SEQUENCES


def train_ranker(run: Run, on_epoch: Callable[[EpochFigures], None] | None = None) -> str:
    """Train the configured ranker on the training windows of the released IDs; return its fingerprint.

    Raises:
        JobError: nothing is released, or there are no sequences of it.
    """
    config, lake = run.config, run.lake
    release = require_release(lake)
    windows = read_windows(lake, release.tokenizer, "train")
    layout = tokenizer_layout(lake, release.tokenizer)
    run.read(SEQUENCES)
    checkpoints = f"checkpoints/{run.run_id}"  # in the lake, which every worker can write to
    with run.phase("train"):
        try:
            trained, history = train(
                windows,
                config.ranker,
                layout,
                release.tokenizer,
                use_gpu=gpus() > 0,
                storage=lake.path(checkpoints),
                filesystem=lake.filesystem,
                on_epoch=on_epoch,
            )
        except TrainingFailedError as error:
            raise JobError(f"training failed: {error}") from error
        finally:
            lake.delete(checkpoints)
    metrics = {"tokenizer": release.tokenizer, "epochs": [asdict(epoch) for epoch in history]}
    with run.phase("write"), tempfile.TemporaryDirectory() as folder:
        trained.save(Path(folder), metrics)
        store(lake, "rankers", Path(folder), trained.fingerprint)
    run.count(rows_in=history[-1].windows)
    run.metrics |= {"ranker": trained.fingerprint, "arch": config.ranker.arch, "gpus": gpus(), **metrics}
    return trained.fingerprint


def evaluate(run: Run, ranker: str) -> dict[str, Any]:
    """AUC, GAUC, log loss and slices of a ranker on the test windows of the tokenizer that it was trained for.

    Raises:
        ConfigError: the lake has no such ranker.
        JobError: the ranker is damaged, or there are no test windows of its tokenizer.
    """
    lake = run.lake
    folder = local_folder(lake, "rankers", ranker)
    try:
        trained = load(folder)
    except ArtefactError as error:
        raise JobError(str(error)) from error
    run.read(SEQUENCES)
    actors = gpus() or 1
    with run.phase("score"):
        windows = read_windows(lake, trained.tokenizer, "test")
        folder_of = partial(local_folder, lake, "rankers", ranker)
        scored = predict(windows, folder_of, tokenizer=trained.tokenizer, actors=actors, use_gpu=gpus() > 0)
        impressions = pa.concat_tables(ray.get(scored.to_arrow_refs()))
    with run.phase("measure"):
        figures = report(impressions)
    run.count(rows_in=impressions.num_rows)
    run.metrics |= {"ranker": ranker, "arch": trained.config.arch, "tokenizer": trained.tokenizer, **figures}
    return figures


def read_windows(lake: Lake, tokenizer: str, split: Literal["train", "test"]) -> ray.data.Dataset:
    """The windows of one split, as a streaming dataset with every declared column.

    Raises:
        JobError: there are none under ``tokenizer``.
    """
    files = lake.files(SEQUENCES, {"tokenizer": tokenizer, "split": split})
    if not files:
        raise JobError(f"there are no {split} windows of tokenizer {tokenizer}: run sequences")
    paths = [lake.path(f"{SEQUENCES.name}/{file}") for file in files]
    columns = [name for name in SEQUENCES.schema.names if name not in SEQUENCES.partition]
    return read_files(lake, paths, columns).map_batches(
        _with_partition, batch_format="pyarrow", fn_kwargs={"values": {"tokenizer": tokenizer, "split": split}}
    )


def _with_partition(rows: pa.Table, values: dict[str, str]) -> pa.Table:
    for name, value in values.items():
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
    return rows.select(SEQUENCES.schema.names).cast(SEQUENCES.schema)

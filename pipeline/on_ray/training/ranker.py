"""Train a ranker on the lake's sequences with Ray Train, and measure it on the test period."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import ray.data
from ray.data.expressions import lit

from pipeline.errors import JobError
from pipeline.lake.artefacts import local_folder, refuse_another, store, tokenizer_layout
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.pools import pool_for
from pipeline.on_ray.session import gpus, read_files
from pipeline.on_ray.training.code_vectors import decoded_vectors
from pipeline.on_ray.training.ranker_workers import train
from pipeline.on_ray.training.runs import Progress
from pipeline.on_ray.training.scoring import SCORED_WINDOWS, fit_references, predict, tallied
from pipeline.on_ray.training.tensorboard import tensorboard
from pipeline.release.pointer import require_release
from ranker.artefact import ArtefactError, TrainedRanker, load
from ranker.baselines.references import Reference
from ranker.config import RankerConfig
from ranker.evaluation import ImpressionError, Tallies, compare, measure
from ranker.windows import WindowError
from schemas.tables import SEQUENCES


def train_ranker(run: Run, progress: Progress | None = None) -> str:
    """Train the configured ranker on the training windows of the released IDs; return its fingerprint.

    A run whose configuration and data are those of one that was killed goes on from its last checkpoint.

    Raises:
        JobError: nothing is released, there are no sequences of it, or they cannot train this ranker.
    """
    config, lake = run.config, run.lake
    release = require_release(lake)
    windows = read_windows(lake, release.tokenizer, "train")
    layout = tokenizer_layout(lake, release.tokenizer)
    run.read(SEQUENCES)
    with run.phase("decode"):
        decoded = decoded_vectors(lake, release.tokenizer, config.ranker.decoded)
    checkpoints = f"checkpoints/{training_name(config.ranker, release.tokenizer, run.versions['read'][SEQUENCES.name])}"
    with run.phase("train"), tensorboard(run, progress) as told:
        try:
            trained, history = train(
                windows,
                config.ranker,
                layout,
                release.tokenizer,
                decoded=decoded,
                lake=lake,
                checkpoints=checkpoints,
                progress=told,
            )
        except WindowError as error:
            raise JobError(f"{SEQUENCES.name}: {error}") from error
    metrics = {"tokenizer": release.tokenizer, "epochs": [asdict(epoch) for epoch in history]}
    with run.phase("write"), tempfile.TemporaryDirectory() as folder:
        trained.save(Path(folder), metrics)
        store(lake, "rankers", Path(folder), trained.fingerprint)
    lake.delete(checkpoints)
    run.count(rows_in=history[-1].windows)
    run.metrics |= {"ranker": trained.fingerprint, "arch": config.ranker.arch, "gpus": gpus(), **metrics}
    return trained.fingerprint


def training_name(config: RankerConfig, tokenizer: str, sequences: int | None) -> str:
    """What tells a training's checkpoints from others': its settings, its data, and the software."""
    parts = (config.model_dump_json(), tokenizer, str(sequences), *map(version, ("hi-sam", "torch", "ray")))
    return "ranker-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def evaluate(run: Run, ranker: str, against: str | None = None) -> dict[str, Any]:
    """What :func:`ranker.evaluation.measure` says of a ranker on the test windows of the tokenizer that it was trained
    for, beside every reference, and who it is.

    With another ranker ``against`` it, also that one's, and the ``comparison``: the first less the second.

    Raises:
        ConfigError: the lake has no such ranker.
        JobError: a ranker is damaged, there are no test windows of its tokenizer, or the two rankers' windows do not
            hold the same impressions.
    """
    names = [ranker] if against is None else [ranker, against]
    trained = [trained_ranker(run.lake, name) for name in names]
    run.read(SEQUENCES)
    for one in trained:
        read_windows(run.lake, one.tokenizer, "test")  # if there are none, that is said before anything is fitted
    with run.phase("fit references"):
        fitted = fit_references(read_windows(run.lake, trained[0].tokenizer, "train"))
    with run.phase("score"):
        tallies = [_tallied(run.lake, name, one.tokenizer, fitted) for name, one in zip(names, trained, strict=True)]
    with run.phase("measure"):
        figures, *other = (
            {"ranker": name, "arch": one.config.arch, "tokenizer": one.tokenizer, **measure(found, list(fitted))}
            for name, one, found in zip(names, trained, tallies, strict=True)
        )
        if other:
            figures |= {"against": other[0], "comparison": _compared(*tallies)}
    run.count(rows_in=figures["impressions"])
    run.metrics |= figures
    return figures


def trained_ranker(lake: Lake, ranker: str) -> TrainedRanker:
    """A ranker of the lake.

    Raises:
        ConfigError: the lake has no such ranker.
        JobError: it is damaged, or another one.
    """
    try:
        with local_folder(lake, "rankers", ranker) as folder:
            trained = load(folder)
    except ArtefactError as error:
        raise JobError(str(error)) from error
    refuse_another(lake, "rankers", ranker, trained.fingerprint)
    return trained


def _tallied(lake: Lake, ranker: str, tokenizer: str, references: Mapping[str, Reference]) -> Tallies:
    """The tallies of all that the ranker scores on the test windows."""
    windows = read_windows(lake, tokenizer, "test")
    folder_of = partial(local_folder, lake, "rankers", ranker)
    count = windows.count()
    pool = pool_for(count, SCORED_WINDOWS, most=1)
    blocks = windows.repartition(target_num_rows_per_block=SCORED_WINDOWS)  # few files still make work for many workers
    scored = predict(blocks, folder_of, tokenizer=tokenizer, references=references, pool=pool)
    return tallied(scored, count, references)


def _compared(ours: Tallies, theirs: Tallies) -> dict[str, Any]:
    try:
        return compare(ours, theirs)
    except ImpressionError as error:
        raise JobError(f"the rankers cannot be compared: {error}; run sequences for both tokenizers") from error


def read_windows(lake: Lake, tokenizer: str, split: Literal["train", "test"]) -> ray.data.Dataset:
    """The windows of one split, as a streaming dataset with every declared column.

    Raises:
        JobError: there are none under ``tokenizer``.
    """
    partition = {"tokenizer": tokenizer, "split": split}
    files = lake.files(SEQUENCES, partition)
    if not files:
        others = pc.unique(lake.read(SEQUENCES, ["tokenizer"], where=pc.field("split") == split)["tokenizer"])
        there = f"those of {', '.join(sorted(others.to_pylist()))}" if len(others) else "none at all"
        raise JobError(
            f"there are no {split} windows of tokenizer {tokenizer}, {SEQUENCES.name} has {there}: "
            f"run sequences while {tokenizer} is released"
        )
    paths = [lake.path(f"{SEQUENCES.name}/{file}") for file in files]
    columns = [name for name in SEQUENCES.schema.names if name not in SEQUENCES.partition]
    return read_files(lake, paths, columns).with_columns({name: lit(value) for name, value in partition.items()})

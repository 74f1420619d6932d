"""Rankers on windows of the ``sequences`` table in one process: the same windows under other codes, train, score."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.file import load_config
from pipeline.lake.storage import Lake
from pipeline.on_ray.training.scoring import WindowScorer
from pipeline.release.pointer import require_release
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.config import RankerConfig
from ranker.training import Training
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import shuffled_batches
from schemas.semantic_id import Layout, item_hash
from schemas.tables import SEQUENCES

NAME = "benchmark"  # stands for a tokenizer's fingerprint


def load_windows(config_file: Path) -> tuple[pa.Table, pa.Table]:
    """Training and test windows of a lake in which ``hisam sequences`` has run."""
    config = load_config(config_file, [])
    lake = Lake.open(config.lake, config.storage_options)
    release = require_release(lake)
    windows = lake.read(SEQUENCES, SEQUENCES.schema.names).filter(pc.field("tokenizer") == release.tokenizer)
    windows = windows.sort_by([("user_id", "ascending"), ("window", "ascending")])
    train, test = (windows.filter(pc.field("split") == split) for split in ("train", "test"))
    return train, test


def without_history_of(windows: pa.Table, hidden_N: NDArray[np.int64], cut: int) -> pa.Table:
    """The windows without what happened with some items before ``cut`` (ms), as if the items were new then."""
    items_R, lengths = pc.list_flatten(windows["item_hashes"]), pc.list_value_length(windows["item_hashes"])
    hidden_R = pc.is_in(items_R, value_set=pa.array(_hashes(hidden_N))).to_numpy()
    keep_R = ~hidden_R | (pc.list_flatten(windows["times"]).to_numpy() >= cut)
    window_R = np.repeat(np.arange(windows.num_rows), lengths.to_numpy())
    offsets = pa.array(np.append(0, np.cumsum(np.bincount(window_R[keep_R], minlength=windows.num_rows))), pa.int32())
    kept_before = np.append(0, np.cumsum(keep_R))
    first_R = (np.cumsum(lengths.to_numpy()) - lengths.to_numpy())[window_R]
    there = [name for name in ("item_ids", "feedback", "requests", "known") if windows[name].null_count == 0]
    for name in ("item_hashes", *there, "labels", "times", "loss_mask", "train_count", "train_clicks"):
        values = pc.list_flatten(windows[name]).combine_chunks()
        if name == "known":
            values = pa.array(kept_before[first_R + values.to_numpy()] - kept_before[first_R], values.type)
        if name in ("train_count", "train_clicks"):
            values = pc.if_else(pa.array(hidden_R), pa.scalar(0, values.type), values)
        lists = pa.ListArray.from_arrays(offsets, values.filter(pa.array(keep_R)))
        windows = windows.set_column(windows.schema.get_field_index(name), name, lists)
    return windows.filter(pc.greater(pc.list_value_length(windows["item_hashes"]), 0))


def under_codes(windows: pa.Table, item_N: NDArray[np.int64], codes_NS: NDArray[np.int16]) -> pa.Table:
    """The windows with the codes (N, S) of the items (N,) in place of their own."""
    hash_N = _hashes(item_N)
    order = np.argsort(hash_N)
    asked = pc.list_flatten(windows["item_hashes"]).to_numpy()
    rows = order[np.searchsorted(hash_N, asked, sorter=order)]
    ends = np.cumsum(pc.list_value_length(windows["item_hashes"]).to_numpy())
    offsets = np.concatenate([[0], ends]) * codes_NS.shape[1]
    tokens = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(codes_NS[rows].ravel()))
    windows = windows.set_column(windows.schema.get_field_index("tokens"), "tokens", tokens)
    named = pa.array([NAME] * windows.num_rows, pa.string())
    return windows.set_column(windows.schema.get_field_index("tokenizer"), "tokenizer", named)


def _hashes(item_N: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([item_hash(str(item)) for item in item_N], np.int64)


def train_and_score(
    train: pa.Table, test: pa.Table, layout: Layout, config: RankerConfig, decoded_CV: Tensor | None = None
) -> pa.Table:
    """A ranker trained on ``train``, and the impressions of ``test`` that it scored."""
    hash_I = None if config.item_id is None else vocabulary([item_counts(train)], config.item_id)
    model = build(config, layout, decoded_CV, hash_I=hash_I)
    training = Training(model, config, layout, train.num_rows)
    while not training.finished:
        starts = range(0, train.num_rows, config.shuffle_windows)
        blocks = (train.slice(start, config.shuffle_windows) for start in starts)
        rng = np.random.default_rng([config.seed, len(training.progress.epochs), 0])
        training.run_epoch(shuffled_batches(blocks, layout, config.batch_items, rng))
    with tempfile.TemporaryDirectory() as folder:
        TrainedRanker(config, layout, NAME, model.state_dict()).save(Path(folder), {})
        threads = torch.get_num_threads()
        scorer = WindowScorer(lambda: nullcontext(Path(folder)), NAME)
        torch.set_num_threads(threads)
    starts = range(0, test.num_rows, 256)
    return pa.concat_tables([scorer(test.slice(start, 256)) for start in starts])

"""Scoring with a trained ranker on Ray: windows of ``sequences`` in, scored impressions out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy

from pipeline.on_ray.session import share_of_cores
from ranker.artefact import load
from ranker.windows import (
    IMPRESSION_COLUMNS,
    MODEL_COLUMNS,
    bucket,
    check_windows,
    collate,
    real_positions,
    window_lengths,
)
from schemas.semantic_id import Layout

SCORED_WINDOWS = 256


def predict(
    dataset: ray.data.Dataset,
    model_folder: Callable[[], Path],
    *,
    tokenizer: str,
    actors: int = 1,
    use_gpu: bool = False,
) -> ray.data.Dataset:
    """Score the impressions of the loss mask of windows of ``sequences``.

    Args:
        dataset: the windows, usually those of the test split.
        model_folder: called in every actor, gives the ranker artefact as a folder of its machine.
        tokenizer: fingerprint that windows and ranker must carry.
        actors: processes that score.
        use_gpu: one GPU an actor.

    Returns:
        A row an impression, lazily: ``user_id``, ``item_id`` string, ``label`` int8, ``score`` float32 (click
        probability), ``train_count`` int32, ``history`` int32 (earlier items of the window), ``missing`` string
        (``text`` or ``image``, whose codes are absent, else ``none``). :func:`ranker.evaluation.report` reads them.
    """
    return dataset.select_columns(MODEL_COLUMNS + IMPRESSION_COLUMNS).map_batches(
        WindowScorer,
        fn_constructor_args=(model_folder, tokenizer, actors),
        batch_size=SCORED_WINDOWS,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=None if use_gpu else 1,
        num_gpus=1 if use_gpu else None,
    )


class WindowScorer:
    """Scores windows in an actor; the artefact is read once."""

    def __init__(self, folder: Callable[[], Path], tokenizer: str, actors: int = 1) -> None:
        self.ranker = load(folder(), tokenizer)
        self.device = torch.device("cuda" if ray.is_initialized() and ray.get_gpu_ids() else "cpu")
        self.model = self.ranker.model(self.device)
        torch.set_num_threads(share_of_cores(actors))

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Impressions of ``windows``, in their order within batches of similar length."""
        config, layout = self.ranker.config, self.ranker.layout
        check_windows(windows, layout, self.ranker.tokenizer, config.max_items, impressions=True)
        batches = bucket(window_lengths(windows), config.batch_items)
        return pa.concat_tables([self._score(windows.take(indices)) for indices in batches])

    def _score(self, windows: pa.Table) -> pa.Table:
        batch = collate(windows, self.ranker.layout)
        real = real_positions(windows)
        counted = batch.loss_mask.numpy()[real]
        with torch.inference_mode():
            there = batch.to(self.device)
            logits = self.model(there.tokens, there.items, there.labels).cpu()
        window_of, position = (index[counted] for index in np.nonzero(real))
        keep = pa.array(counted)
        return pa.table(
            {
                "user_id": windows["user_id"].take(pa.array(window_of)),
                "item_id": pc.list_flatten(windows["item_ids"]).filter(keep),
                "label": batch.labels[batch.loss_mask].to(torch.int8).numpy(),
                "score": logits[batch.loss_mask].double().sigmoid().float().numpy(),
                "train_count": pc.list_flatten(windows["train_count"]).filter(keep).cast(pa.int32()),
                "history": position.astype(np.int32),
                "missing": _missing(batch.tokens[batch.loss_mask], self.ranker.layout),
            }
        )


def _missing(tokens_RT: torch.Tensor, layout: Layout) -> pa.Array:
    """Which modality an impression's item lacks; one that the layout gives no level is never missing."""
    absent_RT, spans = tokens_RT.numpy() == layout.absent, layout.spans()
    lacks_text, lacks_image = (pa.array(absent_RT[:, spans[part]].any(axis=1)) for part in ("text", "image"))
    return pc.if_else(lacks_text, "text", pc.if_else(lacks_image, "image", "none"))

"""Scoring with a trained ranker on Ray: windows of ``sequences`` in, scored impressions out, or their tallies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from numpy.typing import NDArray

from pipeline.on_ray.pools import Pool, Stage, pool_for
from pipeline.on_ray.session import share_of_node, worker_device
from ranker.artefact import load
from ranker.baselines.references import REFERENCES, Reference
from ranker.evaluation import Tallies, streamed, tallies
from ranker.frozen import frozen_logits
from ranker.windows import (
    IMPRESSION_COLUMNS,
    MODEL_COLUMNS,
    WindowBatch,
    bucket,
    check_windows,
    collate,
    earlier,
    flat,
    padded,
    real_positions,
    window_lengths,
)
from schemas.semantic_id import Layout

SCORED_WINDOWS = 256
TALLIED_WINDOWS = 4096  # about so many windows' impressions are tallied at once, whole users of them

Folder = Callable[[], AbstractContextManager[Path]]


def predict(
    dataset: ray.data.Dataset,
    model_folder: Folder,
    *,
    tokenizer: str,
    references: Mapping[str, Reference] | None = None,
    pool: Pool | None = None,
) -> ray.data.Dataset:
    """Score the impressions of the loss mask of windows of ``sequences``.

    Args:
        dataset: the windows, usually those of the test split.
        model_folder: called in every process that scores, gives the ranker artefact as a folder of its machine, which
            is read whole before the block ends.
        tokenizer: fingerprint that windows and ranker must carry.
        references: cheap rules that score the same impressions.
        pool: who scores; by default one worker.

    Returns:
        A row an impression, lazily: ``user_id``, ``item_id`` string, ``item_hash`` int64, ``request`` int32, ``label``
        int8, ``score`` and ``streamed`` float32 (click probabilities, by what was known when the request began and by
        all that is of an earlier time), ``train_count`` int32, ``history`` int32 (items of the window that ``score``
        knows), ``missing`` string (``text`` or ``image``, whose codes are absent, else ``none``), and two scores of
        every reference, float32. :func:`ranker.evaluation.tallies` reads them.
    """
    pool = pool or pool_for(1, 1)
    stage = Stage(WindowScorer, (model_folder, tokenizer, pool.workers, references))
    return pool.map(dataset.select_columns(MODEL_COLUMNS + IMPRESSION_COLUMNS), stage, SCORED_WINDOWS)


def fit_references(training: ray.data.Dataset) -> dict[str, Reference]:
    """Every rule of :data:`ranker.baselines.references.REFERENCES`, fitted on training windows in one process of the
    cluster, which streams them."""
    fit = ray.remote(num_cpus=0)(_fitted)  # the cores are for what it reads with
    fitted: dict[str, Reference] = ray.get(fit.remote(training))
    return fitted


def _fitted(training: ray.data.Dataset) -> dict[str, Reference]:
    def windows() -> Iterator[pa.Table]:
        yield from training.iter_batches(batch_size=SCORED_WINDOWS, batch_format="pyarrow")

    return {name: fit(windows) for name, fit in REFERENCES.items()}


def tallied(scored: ray.data.Dataset, windows: int, references: Mapping[str, Reference]) -> Tallies:
    """The tallies of the impressions of so many windows: a shuffle brings those of a user together, tasks of the
    cluster make the sums of some users, and only the sums, of one size whatever the data, come here."""
    tally = partial(_tallied, references=list(references))
    blocks = max(1, -(-windows // TALLIED_WINDOWS))
    of_users = scored.drop_columns(["item_id"]).repartition(blocks, keys=["user_id"])
    sums = of_users.map_batches(tally, batch_size=None, batch_format="pyarrow")
    parts = (row["tallies"] for row in sums.iter_rows())
    return reduce(add, parts)


def _tallied(impressions: pa.Table, references: list[str]) -> dict[str, NDArray[np.object_]]:
    of_all = np.empty(1, object)
    of_all[0] = tallies(impressions, references)
    return {"tallies": of_all}


class WindowScorer:
    """Scores windows; the artefact is read once."""

    def __init__(
        self,
        folder: Folder,
        tokenizer: str,
        workers: int = 1,
        references: Mapping[str, Reference] | None = None,
    ) -> None:
        self.references = dict(references or {})
        with folder() as here:
            self.ranker = load(here, tokenizer)
        self.device = torch.device(worker_device())
        self.model = self.ranker.model(self.device)
        torch.set_num_threads(share_of_node(workers))

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
        known_P, earlier_P = flat(windows["known"]).astype(np.int64), earlier(windows)
        with torch.inference_mode():
            there = batch.to(self.device)
            frozen = frozen_logits(self.model, there, padded(windows, known_P).to(self.device))
            running = self.model(*there.inputs)
        window_of, _ = (index[counted] for index in np.nonzero(real))
        keep = pa.array(counted)
        scores = {"score": _probabilities(frozen, batch), "streamed": _probabilities(running, batch)}
        for name, reference in self.references.items():
            for column, seen_P in ((name, known_P), (streamed(name), earlier_P)):
                scores[column] = reference(windows, seen_P)[counted].astype(np.float32)
        return pa.table(
            {
                "user_id": windows["user_id"].take(pa.array(window_of)),
                "item_id": pc.list_flatten(windows["item_ids"]).filter(keep),
                "item_hash": batch.items[batch.loss_mask].numpy(),
                "request": pc.list_flatten(windows["requests"]).filter(keep).cast(pa.int32()),
                "label": batch.labels[batch.loss_mask].to(torch.int8).numpy(),
                "train_count": pc.list_flatten(windows["train_count"]).filter(keep).cast(pa.int32()),
                "history": known_P[counted].astype(np.int32),
                "missing": _missing(batch.tokens[batch.loss_mask], self.ranker.layout),
            }
            | scores
        )


def _probabilities(logits_BN: torch.Tensor, batch: WindowBatch) -> NDArray[np.float32]:
    """Of the impressions, in order."""
    return logits_BN.cpu()[batch.loss_mask].double().sigmoid().float().numpy()


def _missing(tokens_RT: torch.Tensor, layout: Layout) -> pa.Array:
    """Which modality an impression's item lacks; one that the layout gives no level is never missing."""
    absent_RT, spans = tokens_RT.numpy() == layout.absent, layout.spans()
    lacks_text, lacks_image = (pa.array(absent_RT[:, spans[part]].any(axis=1)) for part in ("text", "image"))
    return pc.if_else(lacks_text, "text", pc.if_else(lacks_image, "image", "none"))

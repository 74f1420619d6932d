"""What the training windows say before any step: their period, graded feedback, and what is known of their items."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import ray.data
from torch import Tensor

from pipeline.errors import JobError
from ranker.config import RankerConfig
from ranker.factors import ItemFactors
from ranker.training_events import factors_of, training_events
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import WindowError, flat, graded_feedback, period


@dataclass(frozen=True)
class Survey:
    """Of what the loss masks count: first and last time, milliseconds; mean and deviation of graded feedback."""

    first: int
    last: int
    feedback: tuple[float, float] | None


def survey_of(dataset: ray.data.Dataset, fits: Callable[[pa.Table], None]) -> Survey:
    """One pass over all windows, of which a few numbers a block come here.

    Raises:
        WindowError: rows do not fit. Raised in the workers of Ray Data, its text would drown in theirs.
    """
    blocks = dataset.map_batches(_surveyed, batch_format="pyarrow", fn_kwargs={"fits": fits}).take_all()
    for fault in (block["fault"] for block in blocks if block["fault"] is not None):
        raise WindowError(fault)
    ends = [(block["first"], block["last"]) for block in blocks if block["first"] is not None]
    events = sum(block["events"] for block in blocks)
    total, squares = (math.fsum(block[name] for block in blocks) for name in ("sum", "squares"))  # in any order
    feedback = (total / events, math.sqrt(max(squares / events - (total / events) ** 2, 0.0))) if events else None
    return Survey(min((e[0] for e in ends), default=0), max((e[1] for e in ends), default=0), feedback)


def _surveyed(windows: pa.Table, fits: Callable[[pa.Table], None]) -> pa.Table:
    first, last, fault, graded = None, None, None, np.empty(0)
    try:
        fits(windows)
        first, last = period(windows)
        counted = graded_feedback(windows)[flat(windows["loss_mask"]).astype(bool)].astype(np.float64)
        graded = counted[~np.isnan(counted)]
    except WindowError as error:
        fault = str(error)
    whole = {"first": first, "last": last, "events": len(graded)}
    sums = {"sum": float(graded.sum()), "squares": float((graded**2).sum())}
    numbers = {name: pa.array([value], pa.int64()) for name, value in whole.items()}
    return pa.table(
        numbers
        | {name: pa.array([value], pa.float64()) for name, value in sums.items()}
        | {"fault": pa.array([fault], pa.string())}
    )


@dataclass(frozen=True)
class ItemsLearned:
    """Which items have a vector of their own, if any may, and the factors of all items, if the ranker wants them."""

    hash_I: Tensor | None
    factors: ItemFactors | None


def learned_of_items(dataset: ray.data.Dataset, config: RankerConfig, decoded_CV: Tensor | None) -> ray.ObjectRef:
    """A reference to :class:`ItemsLearned`, which is of every item that training meets, and so not for the driver.

    Raises:
        JobError: no item has ``config.item_id.min_events`` training events.
    """
    if config.item_id is None and config.collaborative is None:
        return ray.put(ItemsLearned(None, None))
    learned, known = ray.remote(num_returns=2)(_learned).remote(dataset, config, decoded_CV)
    rows = ray.get(known)  # raises here what every worker would raise
    if config.item_id is not None and not rows:
        raise JobError(f"ranker.item_id: no item has {config.item_id.min_events} training events: lower min_events")
    return learned


def _learned(dataset: ray.data.Dataset, config: RankerConfig, decoded_CV: Tensor | None) -> tuple[ItemsLearned, int]:
    """And how many items have vectors; in one process of the cluster, which holds the counts of all items and, to fit
    factors, all events."""
    hash_I, factors = None, None
    if config.item_id is not None:
        counts = dataset.map_batches(item_counts, batch_size=config.shuffle_windows, batch_format="pyarrow")
        hash_I = vocabulary(counts.iter_batches(batch_size=None, batch_format="pyarrow"), config.item_id)
    if config.collaborative is not None:
        blocks = dataset.iter_batches(batch_size=config.shuffle_windows, batch_format="pyarrow")
        factors = factors_of(training_events(blocks), config.collaborative, decoded_CV, config.seed)
    return ItemsLearned(hash_I, factors), 0 if hash_I is None else len(hash_I)

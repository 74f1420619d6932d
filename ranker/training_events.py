"""Training windows as plain events, each once: who, what, and how it was received.

Letters: P events, I items, T semantic tokens of an item, V width of a content vector.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranker.config import CollaborativeConfig
from ranker.factors import Events, ItemFactors, fit_factors
from ranker.windows import flat, graded_feedback, user_folds, window_lengths


@dataclass(frozen=True)
class TrainingEvents:
    """What the loss masks of training windows count: ``user_P`` and ``item_P``, places among users and among the
    ascending hashes ``hash_I``; 0/1 ``label_P`` and graded feedback ``graded_P``, NaN where there is none; and the
    codes of every item, ``tokens_IT``; the users' folds."""

    user_P: NDArray[np.int64]
    item_P: NDArray[np.int64]
    label_P: NDArray[np.int8]
    graded_P: NDArray[np.float32]
    hash_I: NDArray[np.int64]
    tokens_IT: NDArray[np.int64]
    fold_U: NDArray[np.int64]

    def mixed(self, graded: float) -> Events:
        """With feedback between 0 and 1: the label, mixed with that share of the graded feedback, whose ends are the
        least and the greatest of all."""
        known_P = ~np.isnan(self.graded_P)
        low, high = (self.graded_P[known_P].min(), self.graded_P[known_P].max()) if known_P.any() else (0.0, 1.0)
        low, high = float(low), float(high) if high > low else float(low) + 1.0
        label_P = self.label_P.astype(np.float64)
        scaled_P = (self.graded_P - low) / (high - low)
        feedback_P = np.where(known_P, (1 - graded) * label_P + graded * scaled_P, label_P)
        return Events(self.user_P, self.item_P, feedback_P, self.fold_U, (low, high))


def training_events(windows: Iterable[pa.Table]) -> TrainingEvents:
    """All counted events of the windows, by user, then item, in whatever order windows come; some 30 bytes each are
    held."""
    user_of: dict[str, int] = {}
    users, items, labels, graded, tokens_of = [], [], [], [], []
    for part in windows:
        counted_P = flat(part["loss_mask"]).astype(bool)
        number_B = np.array([user_of.setdefault(user, len(user_of)) for user in part["user_id"].to_pylist()], np.int64)
        hash_P = flat(part["item_hashes"])[counted_P]
        users.append(np.repeat(number_B, window_lengths(part))[counted_P])
        items.append(hash_P)
        labels.append(flat(part["labels"])[counted_P].astype(np.int8))
        graded.append(graded_feedback(part)[counted_P])
        first_hash, first = np.unique(hash_P, return_index=True)
        tokens_of.append(
            (first_hash, flat(part["tokens"]).reshape(len(counted_P), -1)[counted_P][first].astype(np.int64))
        )
    hash_I, item_P = np.unique(np.concatenate(items), return_inverse=True)
    tokens_IT = np.empty((len(hash_I), tokens_of[0][1].shape[1]), np.int64)
    for some_hash, some_tokens in tokens_of:
        tokens_IT[np.searchsorted(hash_I, some_hash)] = some_tokens
    names = sorted(user_of)
    user_P = np.argsort([user_of[name] for name in names])[np.concatenate(users)]
    label_P, graded_P = np.concatenate(labels), np.concatenate(graded)
    order_P = np.lexsort((graded_P, label_P, item_P, user_P))  # sums of floats depend on it
    return TrainingEvents(
        user_P[order_P],
        item_P[order_P],
        label_P[order_P],
        graded_P[order_P],
        hash_I,
        tokens_IT,
        user_folds(names),
    )


def factors_of(
    events: TrainingEvents, config: CollaborativeConfig, decoded_CV: Tensor | None, seed: int = 0
) -> ItemFactors:
    """Factors of all items that training met; their content is the sum of their codes' rows of ``decoded_CV``, laid out
    as :func:`ranker.architectures.build` says."""
    content_IV = None
    if decoded_CV is not None:
        slots = events.tokens_IT.shape[1]
        rows_IT = torch.from_numpy(events.tokens_IT) + torch.arange(slots) * (len(decoded_CV) // slots)
        content_IV = torch.nn.functional.embedding_bag(rows_IT, decoded_CV, mode="sum").double().numpy()
    return fit_factors(events.mixed(config.graded), events.hash_I, content_IV, config, seed)

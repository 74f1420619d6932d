"""The vectors of a training plan as memory-mapped files: a process holds the sample, and little of it in memory.

A content is known here by a key, 64 bits of its name, and rows stand in the order of keys: they do not depend on how
the plan is cut into files, and a split by hash is a run of rows.

N contents, B rows of a batch, D width of a modality's vectors.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import JobError
from pipeline.lake.plans import Plan
from pipeline.lake.storage import Lake
from pipeline.on_ray.plan_reader import read_columns
from pipeline.on_ray.vector_columns import to_matrix
from tokenizer.base.config import SHARE
from tokenizer.base.embeddings import Embeddings

BLOCK = 4096  # rows read at a time
KEY_DIGITS = slice(0, 16)  # of the content's name

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Vectors:
    """The vectors that a plan brings."""

    lake: Lake
    plan: Plan

    @cached_property
    def keys_N(self) -> Keys:
        """The keys of its contents, sorted."""
        found = [content_keys(batch["content"]) for batch in self._batches(["content"])]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))

    def load(self) -> Embeddings:
        """The vectors as float16 tensors over files that have no name and vanish with the tensors or the process.

        A modality that no content has is one number wide.

        Raises:
            JobError: vectors of one modality differ in length, or the temporary folder has no room for them.
        """
        text, image = (_Modality(f"{m}_vector", len(self.keys_N)) for m in ("text", "image"))
        for batch in self._batches(["content", text.column, image.column]):
            rows_B = np.searchsorted(self.keys_N, content_keys(batch["content"]))
            for modality in (text, image):
                modality.write(rows_B, batch[modality.column])
        presence = (torch.from_numpy(modality.has_N) for modality in (text, image))
        return Embeddings(text.vectors(), image.vectors(), *presence)

    def _batches(self, columns: list[str]) -> Iterator[pa.Table]:
        for chunk in range(self.plan.chunks):
            for part in self.plan.parts(self.lake, chunk):
                yield from read_columns(self.lake, part, columns, BLOCK)


@dataclass(frozen=True)
class Splits:
    """Rows of training items, of items that early stopping watches, and of items held out for the metrics."""

    train: slice
    validation: slice
    held_out: slice


def splits(keys_N: Keys, *, watched: bool) -> Splits:
    """The same contents in every run, by their hash alone; only a ``watched`` training gives items up to be watched."""
    bounds = np.array([SHARE * 2**64, 2 * SHARE * 2**64]).astype(np.uint64)
    first, second = np.searchsorted(keys_N, bounds).tolist()
    start = second if watched else first
    return Splits(slice(start, len(keys_N)), slice(first, start), slice(0, first))


def content_keys(names: pa.Array | pa.ChunkedArray) -> Keys:
    """A number of 64 bits for the name of every content, uniform."""
    digits = pc.utf8_slice_codeunits(names, KEY_DIGITS.start, KEY_DIGITS.stop).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(digits)), ">u8").astype(np.uint64)


class _Modality:
    """The vectors of one modality as they come in; the first ones tell how wide they are."""

    def __init__(self, column: str, rows: int) -> None:
        self.column = column
        self.has_N = np.zeros(rows, bool)
        self._x_ND: np.memmap | None = None

    def write(self, rows_B: NDArray[np.intp], vectors: pa.Array | pa.ChunkedArray) -> None:
        x_BD, has_B = to_matrix(vectors, self.column, None if self._x_ND is None else self._x_ND.shape[1])
        if self._x_ND is None and has_B.any():
            self._x_ND = _map(len(self.has_N), x_BD.shape[1])
        if self._x_ND is not None:
            self._x_ND[rows_B] = x_BD
        self.has_N[rows_B] = has_B

    def vectors(self) -> Tensor:
        if self._x_ND is None:
            return torch.zeros(1, 1, dtype=torch.float16).expand(len(self.has_N), 1)
        return torch.from_numpy(self._x_ND)


def _map(rows: int, width: int) -> np.memmap:
    size = rows * width * np.dtype(np.float16).itemsize
    with tempfile.TemporaryFile() as file:
        try:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # else a full disk is no error now but a crash on writing to the map
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise JobError(
                f"the vectors need {size / 1e9:.1f} GB in {tempfile.gettempdir()} ({error.strerror}): "
                "make room there, or name a folder of a larger disk in TMPDIR"
            ) from error
        return np.memmap(file, np.float16, "r+", shape=(rows, width))

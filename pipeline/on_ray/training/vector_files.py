"""The vectors of the live items, streamed from the lake into memory-mapped files, so that memory does not grow.

A content is known here by a key, 64 bits of its hash, and rows stand in the order of keys: they do not depend on how
the lake's tables are cut into files, and a split by hash is a run of rows.

N contents, B rows of a batch, D embedding width of a modality, V versions of items.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pandas.util import hash_array
from torch import Tensor

from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from pipeline.on_ray.vector_columns import to_matrix
from schemas.tables import EMBEDDINGS, ITEMS, Table
from tokenizer.base.embeddings import Embeddings

BLOCK = 4096  # rows read at a time
KEY_DIGITS = slice(12, 28)  # of the content hash
SHARE = 1 / 20  # of the contents: held out for the metrics; as many again to watch a training

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Vectors:
    """The vectors of the contents ``keys_N`` under an encoder, in one version of ``embeddings``: what to spool."""

    lake: Lake
    encoder: str
    version: int | None
    keys_N: Keys

    def spool(self) -> Embeddings:
        """The vectors as float16 tensors over files that have no name and vanish with the tensors or the process.

        Of a content that overlapping runs wrote twice one row counts, the last by name of file. A modality that no
        content has is one number wide.

        Raises:
            JobError: vectors of one modality differ in length, or the temporary folder has no room for them.
        """
        text, image = (_Modality(f"{m}_embedding", len(self.keys_N)) for m in ("text", "image"))
        of_encoder = ds.field("encoder") == self.encoder
        columns = ["content_hash", text.column, image.column]
        for batch in _batches(self.lake, EMBEDDINGS, self.version, columns, of_encoder):
            keys_B = content_keys(batch["content_hash"])
            rows_B = np.searchsorted(self.keys_N, keys_B).clip(max=len(self.keys_N) - 1)
            wanted_B = self.keys_N[rows_B] == keys_B
            for modality in (text, image):
                modality.write(rows_B[wanted_B], batch[modality.column].filter(pa.array(wanted_B)))
        presence = (torch.from_numpy(modality.has_N) for modality in (text, image))
        return Embeddings(text.vectors(), image.vectors(), *presence)


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


def live_vectors(lake: Lake, encoder: str, items_version: int | None, version: int | None) -> Vectors:
    """The contents of live items that have vectors under ``encoder``, each once.

    Raises:
        JobError: there is no such content, or no such table.
    """
    live_N = live_keys(lake, items_version)
    batches = _batches(lake, EMBEDDINGS, version, ["content_hash"], ds.field("encoder") == encoder)
    encoded = [np.empty(0, np.uint64), *(content_keys(batch["content_hash"]) for batch in batches)]
    keys_N = np.intersect1d(live_N, np.concatenate(encoded))
    if not len(keys_N):
        raise JobError(f"no live item has a vector under the configured encoders ({encoder}): run encode first")
    return Vectors(lake, encoder, version, keys_N)


def live_keys(lake: Lake, version: int | None = None) -> Keys:
    """The keys of the contents in :func:`pipeline.lake.live.live_items`, for a tenth of the memory."""
    numbers: dict[str, int] = {}
    columns: list[tuple[NDArray, ...]] = []
    for batch in _batches(lake, ITEMS, version, ["item_id", "content_hash", "deleted", "run_id"]):
        runs = batch["run_id"].dictionary_encode()
        number_R = np.array([numbers.setdefault(run, len(numbers)) for run in runs.dictionary.to_pylist()], np.int32)
        ids_B = hash_array(batch["item_id"].to_numpy(zero_copy_only=False), categorize=False)
        deleted_B = batch["deleted"].to_numpy(zero_copy_only=False)
        columns.append((ids_B, content_keys(batch["content_hash"]), deleted_B, number_R[np.asarray(runs.indices)]))
    if not columns:
        return np.empty(0, np.uint64)
    id_V, key_V, deleted_V, run_V = (np.concatenate(column) for column in zip(*columns, strict=True))
    del columns
    place_of_run = np.argsort(np.argsort(list(numbers))).astype(np.int32)
    order_V = np.lexsort((place_of_run[run_V], id_V))
    id_V = id_V[order_V]
    newest_N = order_V[np.append(id_V[1:] != id_V[:-1], True)]
    return np.unique(key_V[newest_N[~deleted_V[newest_N]]])


def content_keys(hashes: pa.Array) -> Keys:
    """A number of 64 bits for every content hash, uniform."""
    digits = pc.utf8_slice_codeunits(hashes, KEY_DIGITS.start, KEY_DIGITS.stop).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(digits)), ">u8").astype(np.uint64)


class _Modality:
    """The vectors of one modality as they come in; the first ones tell how wide they are."""

    def __init__(self, column: str, rows: int) -> None:
        self.column = column
        self.has_N = np.zeros(rows, bool)
        self._x_ND: np.memmap | None = None

    def write(self, rows_B: NDArray[np.intp], vectors: pa.Array) -> None:
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


def _batches(
    lake: Lake, table: Table, version: int | None, columns: list[str], where: ds.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of the files that ``where``, a condition on partitions, picks; files in order of their names.

    One file at a time, and pages of it: a scanner of the dataset would hold whole row groups of several files.
    """
    for fragment in sorted(
        lake.delta(table, version).to_pyarrow_dataset().get_fragments(where), key=lambda found: found.path
    ):
        with fragment.open() as source, pq.ParquetFile(source) as file:
            yield from file.iter_batches(BLOCK, columns=columns)

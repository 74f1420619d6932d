"""Embeddings between matrices and Arrow columns: lists of float16 numbers, null where a modality is absent."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import JobError


def to_column(x_ND: NDArray[np.float32], present_N: NDArray[np.bool_]) -> pa.ListArray:
    """The rows of ``x_ND`` that ``present_N`` marks, rounded to float16; the others are null."""
    rounded_PD = x_ND[present_N].astype(np.float16).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(present_N * x_ND.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rounded_PD.ravel()), mask=pa.array(~present_N))


def to_matrix(
    column: pa.ChunkedArray | pa.Array, name: str, dim: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """``(N, D)`` float32 and which rows are present; absent rows are zero.

    D is ``dim``, or, where that is not given, what the column holds: 1 where all rows are absent.

    Raises:
        JobError: the vectors are not all of length D.
    """
    present_N = np.asarray(pc.is_valid(column))
    widths = set(pc.unique(pc.list_value_length(column).drop_null()).to_pylist())
    if dim is None:
        dim = max(widths, default=1)
    if widths - {dim}:
        raise JobError(f"{name} has vectors of {sorted(widths)} numbers where {dim} are expected")
    x_ND = np.zeros((len(column), dim), np.float32)
    x_ND[present_N] = np.asarray(pc.list_flatten(column), np.float32).reshape(int(present_N.sum()), dim)
    return x_ND, present_N

"""The decoded vectors of a tokenizer's codes, fitted to the codes of all items in the lake, for rankers to read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import JobError
from pipeline.lake.storage import Lake
from pipeline.on_ray.tokenize import load_tokenizer
from schemas.semantic_id import PARTS
from schemas.tables import SEMANTIC_IDS
from tokenizer.base.embeddings import TokenizerError
from tokenizer.quality.code_vectors import code_vectors


@dataclass(frozen=True)
class Decoded:
    """Vectors (C, V) float32 of a tokenizer's codes, see :func:`tokenizer.quality.code_vectors.code_vectors`."""

    tokenizer: str
    vectors_CV: Tensor


def decoded_vectors(lake: Lake, tokenizer: str, modalities: Sequence[str]) -> Decoded | None:
    """The vectors of a tokenizer's codes, all ``modalities`` side by side; None of no modality.

    A function of the set of codes alone, whatever order the table has them in.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: the tokenizer is damaged or does not know a modality.
    """
    if not modalities:
        return None
    try:
        model = load_tokenizer(lake, tokenizer).model
        rows = lake.read(SEMANTIC_IDS, list(PARTS), where=pc.field("tokenizer") == tokenizer)
        layout = model.layout
        parts = [filled(rows[p], levels, layout.absent) for p, levels in zip(PARTS, layout.levels, strict=True)]
        codes_NS = np.unique(np.concatenate(parts, axis=1), axis=0)
        return Decoded(tokenizer, code_vectors(model, torch.from_numpy(codes_NS), modalities))
    except TokenizerError as error:
        raise JobError(f"ranker.decoded: {error}") from error


def filled(part: pa.ChunkedArray, levels: int, absent: int) -> NDArray[np.int16]:
    """``(N, levels)``, rows without the modality filled with the absent code."""
    codes_NL = np.full((len(part), levels), absent, np.int16)
    if levels:
        codes_NL[part.is_valid().to_numpy()] = pc.list_flatten(part).to_numpy().reshape(-1, levels)
    return codes_NL

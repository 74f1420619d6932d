"""The decoded vectors of a tokenizer's codes, fitted to the codes of the lake's items, for rankers to read.

N items, S slots, L levels of a modality.
"""

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
from pipeline.on_ray.session import read_files
from pipeline.on_ray.tokenize import load_tokenizer
from schemas.semantic_id import PARTS, Layout
from schemas.tables import SEMANTIC_IDS
from tokenizer.base.embeddings import TokenizerError
from tokenizer.quality.code_vectors import code_vectors, sampled

BLOCK = 2**18  # rows of a sample taken at once


@dataclass(frozen=True)
class Decoded:
    """Vectors (C, V) float32 of a tokenizer's codes, see :func:`tokenizer.quality.code_vectors.code_vectors`."""

    tokenizer: str
    vectors_CV: Tensor


def decoded_vectors(lake: Lake, tokenizer: str, modalities: Sequence[str]) -> Decoded | None:
    """The vectors of a tokenizer's codes, all ``modalities`` side by side; None of no modality.

    A function of the set of codes alone, whatever order and files the table has them in.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: the tokenizer is damaged or does not know a modality.
    """
    if not modalities:
        return None
    try:
        model = load_tokenizer(lake, tokenizer).model
        codes_NS = _some_codes(lake, tokenizer, model.layout)
        return Decoded(tokenizer, code_vectors(model, torch.from_numpy(codes_NS), modalities))
    except TokenizerError as error:
        raise JobError(f"ranker.decoded: {error}") from error


def _some_codes(lake: Lake, tokenizer: str, layout: Layout) -> NDArray[np.int16]:
    """``(N, S)``: the sample of all items' codes that vectors are fitted to.

    Tasks of the cluster make a sample of each block of the table, and samples of samples come here: of one size
    however many items there are.
    """
    found_NS = np.empty((0, layout.slots), np.int16)
    files = lake.files(SEMANTIC_IDS, {"tokenizer": tokenizer}) if lake.exists(SEMANTIC_IDS) else []
    if files:
        rows = read_files(lake, [lake.path(f"{SEMANTIC_IDS.name}/{file}") for file in files], list(PARTS))
        samples = rows.map_batches(_sample, batch_size=BLOCK, batch_format="pyarrow", fn_kwargs={"layout": layout})
        for batch in samples.iter_batches(batch_size=None, batch_format="pyarrow"):
            some_NS = pc.list_flatten(batch["codes"]).to_numpy().reshape(-1, layout.slots)
            found_NS = sampled(np.concatenate([found_NS, some_NS]))
    return found_NS


def _sample(rows: pa.Table, layout: Layout) -> pa.Table:
    parts = [filled(rows[p], levels, layout.absent) for p, levels in zip(PARTS, layout.levels, strict=True)]
    codes_NS = sampled(np.concatenate(parts, axis=1))
    return pa.table({"codes": pa.FixedSizeListArray.from_arrays(pa.array(codes_NS.ravel()), layout.slots)})


def filled(part: pa.ChunkedArray, levels: int, absent: int) -> NDArray[np.int16]:
    """``(N, levels)``, rows without the modality filled with the absent code."""
    codes_NL = np.full((len(part), levels), absent, np.int16)
    if levels:
        codes_NL[part.is_valid().to_numpy()] = pc.list_flatten(part).to_numpy().reshape(-1, levels)
    return codes_NL

"""Train the tokenizer on the vectors of the live items, and leave it in the lake with its metrics."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

from pipeline.artefacts import store
from pipeline.embedding_columns import to_matrix
from pipeline.encoders import encoder_fingerprint
from pipeline.errors import JobError
from pipeline.lake import Lake
from pipeline.live import live_items
from pipeline.run import Run
from schemas.tables import EMBEDDINGS, ITEMS
from tokenizer import artefact
from tokenizer.embeddings import Embeddings, TokenizerError
from tokenizer.metrics import evaluate
from tokenizer.training import fit

HELD_OUT = 1 / 20  # of the items, for the metrics; chosen by content, so the same ones in every run
SAMPLE_DIGITS, SPLIT_DIGITS = slice(0, 12), slice(12, 24)  # of the content hash: two independent draws


def train_tokenizer(run: Run, progress: Callable[[int, int, dict[str, float]], None] | None = None) -> str:
    """Fit the configured tokenizer and return its fingerprint.

    Raises:
        JobError: there are no vectors under the configured encoders, or they cannot train this tokenizer.
    """
    config, lake = run.config, run.lake
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with run.phase("read"):
        encoder = encoder_fingerprint(config.encoders)
        run.read(ITEMS)
        run.read(EMBEDDINGS)
        hashes, embeddings = read_embeddings(lake, encoder, config.tokenizer.max_train_items)
        run.count(rows_in=len(embeddings))
    held_out_N = torch.from_numpy(fraction(hashes, SPLIT_DIGITS) < HELD_OUT)
    try:
        with run.phase("train"):
            model = fit(embeddings.select(~held_out_N), config.tokenizer, device=device, progress=progress)
        with run.phase("measure"):
            metrics = evaluate(model, embeddings.select(~held_out_N), embeddings.select(held_out_N))
    except TokenizerError as error:
        raise JobError(f"tokenizer: {error}") from error
    with run.phase("write"), tempfile.TemporaryDirectory() as folder:
        fingerprint = artefact.save(model, Path(folder), metrics, encoder)
        store(lake, "tokenizers", Path(folder), fingerprint)
    run.metrics |= {"tokenizer": fingerprint, "encoder": encoder, "device": device, **metrics}
    return fingerprint


def read_embeddings(lake: Lake, encoder: str, most: int) -> tuple[pa.Array, Embeddings]:
    """The content hashes and vectors of the live items, each content once, at most about ``most`` of them.

    A sample is drawn by hash, so it does not depend on the order of rows.

    Raises:
        JobError: no live item has a vector under ``encoder``.
    """
    contents = pc.unique(live_items(lake)["content_hash"])
    share = min(1.0, most / max(1, len(contents)))
    wanted = contents.filter(pa.array(fraction(contents, SAMPLE_DIGITS) < share))
    columns = ["content_hash", "text_embedding", "image_embedding"]
    chosen = (ds.field("encoder") == encoder) & ds.field("content_hash").isin(wanted)
    rows = lake.read(EMBEDDINGS, columns, where=chosen).sort_by("content_hash")
    if not rows.num_rows:
        raise JobError(f"no live item has a vector under the configured encoders ({encoder}): run encode first")
    text_ND, has_text_N = to_matrix(rows["text_embedding"], "text_embedding")
    image_ND, has_image_N = to_matrix(rows["image_embedding"], "image_embedding")
    embeddings = Embeddings(*map(torch.from_numpy, (text_ND, image_ND, has_text_N, has_image_N)))
    return rows["content_hash"].combine_chunks(), embeddings


def fraction(hashes: pa.Array, digits: slice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A number from 0 to 1 for every content hash, uniform and fixed by some of the hash's digits alone."""
    parts = pc.utf8_slice_codeunits(hashes, digits.start, digits.stop).to_pylist()
    return np.array([int(part, 16) for part in parts], dtype=np.float64) / 16 ** (digits.stop - digits.start)

"""Ray Data: live items that have no vector under the configured encoders get one."""

import io
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import Encoders
from pipeline.embedding_columns import to_column
from pipeline.encoders import Encode, encoder_fingerprint, load_encoder
from pipeline.live import Chunk, chunks, encoded, first_of_each, live_items, only, without
from pipeline.ray_session import actor_device, actor_pool, read_files
from pipeline.run import Run
from schemas.tables import EMBEDDINGS, ITEMS

logger = logging.getLogger(__name__)

ROW = ["item_id", "run_id"]  # identifies a row of items: a run appends at most one an item


def encode(run: Run) -> str:
    """Append the missing rows of ``embeddings``, a commit a chunk, and return the encoders' fingerprint."""
    lake, settings = run.lake, run.config.encoders
    with run.phase("pending"):
        encoder = encoder_fingerprint(settings)
        run.read(ITEMS)
        live = live_items(lake)
        # Items of equal content are encoded once, from the row that sorts first.
        by_content = live.sort_by([("content_hash", "ascending"), ("item_id", "ascending")])
        contents = first_of_each(by_content, "content_hash")
        pending = without(contents, encoded(lake, encoder), ["content_hash"])
        run.count(rows_in=contents.num_rows, skipped=contents.num_rows - pending.num_rows)
    run.metrics["encoder"] = encoder
    lake.create(EMBEDDINGS)
    with run.phase("encode"):
        for chunk in chunks(pending, settings.commit_rows):
            _encode_chunk(run, chunk, encoder)
            run.count(rows_out=chunk.rows.num_rows)
            logger.info("encode: committed %d of %d contents", run.counts["rows_out"], pending.num_rows)
    run.wrote(EMBEDDINGS)
    return encoder


def _encode_chunk(run: Run, chunk: Chunk, encoder: str) -> None:
    lake, settings = run.lake, run.config.encoders
    columns = [*ROW, "content_hash", "text", "image", "text_sha", "image_sha"]
    files = [lake.path(f"{ITEMS.name}/{file}") for file in chunk.files]
    pending = ray.put(chunk.rows.select(ROW))
    batch = max(settings.text.batch_size, settings.image.batch_size)
    (
        read_files(lake, files, columns, batch)
        .map_batches(_only_pending, batch_format="pyarrow", fn_kwargs={"pending": pending})
        .map_batches(
            EncodeItems,
            batch_format="pyarrow",
            batch_size=batch,
            fn_constructor_args=(settings, encoder),
            **actor_pool(settings.workers, -(-chunk.rows.num_rows // batch)),
        )
        .write_delta(lake.table_uri(EMBEDDINGS), storage_options=lake.storage_options or None)
    )


def _only_pending(rows: pa.Table, pending: Any) -> pa.Table:
    return only(rows, ray.get(pending) if isinstance(pending, ray.ObjectRef) else pending, ROW)


class EncodeItems:
    """An actor that holds both encoders and turns rows of ``items`` into rows of ``embeddings``."""

    def __init__(self, settings: Encoders, encoder: str) -> None:
        device = actor_device()
        self._settings, self._encoder = settings, encoder
        self._text = load_encoder("text", settings.text, device)
        self._image = load_encoder("image", settings.image, device)

    def __call__(self, items: pa.Table) -> pa.Table:
        """Vectors of a batch of items; null for the modality that an item does not have."""
        texts = items["text"].to_pylist()
        images = [
            None if data is None else Image.open(io.BytesIO(data)).convert("RGB") for data in items["image"].to_pylist()
        ]
        rows = pa.table(
            {
                "content_hash": items["content_hash"],
                "encoder": pa.array([self._encoder] * len(texts), pa.string()),
                "text_sha": items["text_sha"],
                "image_sha": items["image_sha"],
                "text_embedding": _encode_present(self._text, texts, self._settings.text.batch_size),
                "image_embedding": _encode_present(self._image, images, self._settings.image.batch_size),
            }
        )
        return EMBEDDINGS.conform(rows)


def _encode_present(encode: Encode, inputs: list[Any], batch_size: int) -> pa.ListArray:
    """A column of vectors: of the inputs that are there, similar lengths together so that little is padded."""
    there = [i for i, value in enumerate(inputs) if value is not None]
    there.sort(key=lambda i: len(inputs[i]) if isinstance(inputs[i], str) else 0)
    vectors: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(there), batch_size):
        index = there[start : start + batch_size]
        vectors.update(zip(index, encode([inputs[i] for i in index]), strict=True))
    present_N = np.array([value is not None for value in inputs], dtype=bool)
    dim = len(next(iter(vectors.values()))) if vectors else 0
    x_ND = np.zeros((len(inputs), dim), np.float32)
    for i, vector in vectors.items():
        x_ND[i] = vector
    return to_column(x_ND, present_N)

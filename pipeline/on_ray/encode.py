"""Ray Data: live items that have no vector under the configured encoders get one.

A text or an image is encoded once, however many items have it and whenever they came: what the table has of it already
is read there, the rest is encoded, and rows are put together from both.
"""

import io
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.models import Encoders
from pipeline.lake.live import Chunk, chunks, encoded, first_of_each, live_items, row_key, without
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.encoders import Encode, Modality, encoder_fingerprint, load_encoder
from pipeline.on_ray.session import actor_device, actor_pool, read_files
from pipeline.on_ray.vector_columns import to_column
from schemas.tables import EMBEDDINGS, ITEMS

logger = logging.getLogger(__name__)

ROW = ["item_id", "run_id"]  # identifies a row of items: a run appends at most one an item
MODALITIES: tuple[Modality, ...] = ("text", "image")
VECTORS = ["text_sha", "text_embedding", "image_sha", "image_embedding"]
BLOCK = 4096  # rows of a file
POOL = pa.schema([EMBEDDINGS.schema.field(name) for name in VECTORS])


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
    run.count(rows_out=0, texts_encoded=0, images_encoded=0)
    lake.create(EMBEDDINGS)
    with run.phase("encode"):
        for chunk in chunks(pending, settings.commit_rows):
            _encode_chunk(run, chunk, encoder)
            run.count(rows_out=chunk.rows.num_rows)
            logger.info("encode: committed %d of %d contents", run.counts["rows_out"], pending.num_rows)
    run.wrote(EMBEDDINGS)
    return encoder


def _encode_chunk(run: Run, chunk: Chunk, encoder: str) -> None:
    lake = run.lake
    rows = _with_shas(lake, chunk)
    sources = []
    stored = {m: _stored(lake, encoder, m, rows) for m in MODALITIES}
    for modality, known in stored.items():
        new = _first_without(rows[f"{modality}_sha"].combine_chunks(), known[f"{modality}_sha"].combine_chunks())
        rows = rows.append_column(f"encode_{modality}", new)
        run.count(**{f"{modality}s_encoded": pc.sum(new).as_py() or 0})
    teaching = rows.filter(pc.or_(rows["encode_text"], rows["encode_image"]))
    if teaching.num_rows:
        sources.append(_encoded_now(run, teaching))
    files = sorted({file for known in stored.values() for file in known["file"].to_pylist()})
    if files:
        paths = [lake.path(f"{EMBEDDINGS.name}/{file}") for file in files]
        wanted = {m: ray.put(rows[f"{m}_sha"].combine_chunks()) for m in MODALITIES}
        sources.append(
            read_files(lake, paths, VECTORS).map_batches(_wanted, batch_format="pyarrow", fn_kwargs={"wanted": wanted})
        )
    vectors = [block for source in sources for block in source.to_arrow_refs()]
    (
        ray.data.from_arrow(rows.select(["content_hash", "text_sha", "image_sha"]))
        .repartition(target_num_rows_per_block=BLOCK)
        .map_batches(
            _put_together,
            batch_format="pyarrow",
            batch_size=BLOCK,
            fn_kwargs={"vectors": vectors, "encoder": encoder},
        )
        .write_delta(lake.table_uri(EMBEDDINGS), storage_options=lake.storage_options or None)
    )


def _with_shas(lake: Lake, chunk: Chunk) -> pa.Table:
    """The chunk's rows with the hashes of their text and image, in order of the contents, so that of several items
    with one text the same one is encoded in any order of files."""
    paths = [lake.path(f"{ITEMS.name}/{file}") for file in chunk.files]
    found = ds.dataset(paths, format="parquet", filesystem=lake.filesystem).to_table([*ROW, "text_sha", "image_sha"])
    at = pc.index_in(row_key(chunk.rows, ROW), value_set=row_key(found, ROW))
    rows = chunk.rows
    for name in ("text_sha", "image_sha"):
        rows = rows.append_column(name, found[name].take(at))
    return rows.sort_by("content_hash")


def _stored(lake: Lake, encoder: str, modality: Modality, rows: pa.Table) -> pa.Table:
    """``…_sha`` and ``file`` of the vectors that the table has of the rows' texts or images."""
    sha = f"{modality}_sha"
    mine = (ds.field("encoder") == encoder) & ds.field(sha).isin(rows[sha].drop_null().combine_chunks())
    found = lake.read(EMBEDDINGS, [sha, "__filename"], where=mine).rename_columns([sha, "file"])
    return first_of_each(found.sort_by("file"), sha)


def _first_without(shas: pa.Array, stored: pa.Array) -> pa.Array:
    """Bool a row: the first of each hash that is not among the stored ones."""
    new = np.asarray(pc.and_(pc.is_valid(shas), pc.invert(pc.is_in(shas, value_set=stored))))
    first = np.zeros(len(shas), bool)
    first[np.unique(np.asarray(shas.dictionary_encode().indices.fill_null(-1)), return_index=True)[1]] = True
    return pa.array(new & first)


def _encoded_now(run: Run, teaching: pa.Table) -> ray.data.Dataset:
    """Vectors of the texts and images that the rows are marked to be encoded for."""
    settings = run.config.encoders
    batch = max(settings.text.batch_size, settings.image.batch_size)
    files = [run.lake.path(f"{ITEMS.name}/{file}") for file in pc.unique(teaching["file"]).to_pylist()]
    marks = ray.put(teaching.select([*ROW, "encode_text", "encode_image"]))
    return (
        read_files(run.lake, files, [*ROW, "text", "image", "text_sha", "image_sha"], batch)
        .map_batches(_marked, batch_format="pyarrow", fn_kwargs={"marks": marks})
        .map_batches(
            EncodeItems,
            batch_format="pyarrow",
            batch_size=batch,
            fn_constructor_args=(settings,),
            **actor_pool(settings.workers, -(-teaching.num_rows // batch)),
        )
    )


def _marked(rows: pa.Table, marks: Any) -> pa.Table:
    """The rows that are marked, with nothing in place of what is not to be encoded."""
    marks = ray.get(marks) if isinstance(marks, ray.ObjectRef) else marks
    at = pc.index_in(row_key(rows, ROW), value_set=row_key(marks, ROW))
    rows, at = rows.filter(pc.is_valid(at)), at.drop_null()
    for modality in MODALITIES:
        mark = marks[f"encode_{modality}"].take(at)
        for name in (modality, f"{modality}_sha"):
            kept = pc.if_else(mark, rows[name], pa.scalar(None, rows[name].type))
            rows = rows.set_column(rows.schema.get_field_index(name), name, kept)
    return rows


def _wanted(vectors: pa.Table, wanted: dict[str, Any]) -> pa.Table:
    """The stored vectors of a text or an image that is asked for."""
    asked = [pc.is_in(vectors[f"{m}_sha"], value_set=ray.get(shas), skip_nulls=True) for m, shas in wanted.items()]
    return vectors.filter(pc.or_(*asked))


def _put_together(rows: pa.Table, vectors: list[Any], encoder: str) -> pa.Table:
    """Rows of ``embeddings`` from the vectors of their texts and images, whichever row these were encoded for."""
    pool = pa.concat_tables([table.select(VECTORS).cast(POOL) for table in ray.get(vectors)])
    for modality in MODALITIES:
        known = pool.filter(pc.is_valid(pool[f"{modality}_embedding"]))
        at = pc.index_in(rows[f"{modality}_sha"], value_set=known[f"{modality}_sha"], skip_nulls=True)
        rows = rows.append_column(f"{modality}_embedding", known[f"{modality}_embedding"].take(at))
    named = pa.array([encoder] * rows.num_rows, pa.string())
    return EMBEDDINGS.conform(rows.append_column("encoder", named))


class EncodeItems:
    """An actor that holds both encoders and turns rows of ``items`` into vectors by the hashes of text and image."""

    def __init__(self, settings: Encoders) -> None:
        device = actor_device()
        self._settings = settings
        self._text = load_encoder("text", settings.text, device)
        self._image = load_encoder("image", settings.image, device)

    def __call__(self, items: pa.Table) -> pa.Table:
        """Vectors of a batch of items; null for the modality that an item does not have."""
        texts = items["text"].to_pylist()
        images = [
            None if data is None else Image.open(io.BytesIO(data)).convert("RGB") for data in items["image"].to_pylist()
        ]
        return pa.table(
            {
                "text_sha": items["text_sha"],
                "text_embedding": _encode_present(self._text, texts, self._settings.text.batch_size),
                "image_sha": items["image_sha"],
                "image_embedding": _encode_present(self._image, images, self._settings.image.batch_size),
            }
        )


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

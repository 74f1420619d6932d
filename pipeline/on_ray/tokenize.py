"""Ray Data: live items that have no IDs under a tokenizer get them from their stored vectors."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from numpy.typing import NDArray

from pipeline.errors import JobError
from pipeline.lake.artefacts import local_folder, refuse_another
from pipeline.lake.live import Chunk, chunks, encoded, live_items, tokenized, without
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.on_ray.session import actor_device, actor_pool, read_files
from pipeline.on_ray.vector_columns import to_matrix
from schemas.semantic_id import disambiguator
from schemas.tables import EMBEDDINGS, ITEMS, SEMANTIC_IDS
from tokenizer.base import artefact
from tokenizer.base.embeddings import TokenizerError

logger = logging.getLogger(__name__)

BATCH = 4096


def tokenize(run: Run, tokenizer: str) -> None:
    """Append the missing rows of ``semantic_ids`` under ``tokenizer``, a commit a chunk.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: it is damaged, or was trained on vectors of other encoders than those configured; both are named.
    """
    fill(run, tokenizer, configured_encoders(run, tokenizer))


def configured_encoders(run: Run, tokenizer: str) -> str:
    """The fingerprint of the configured encoders, on whose vectors ``tokenizer`` must have been trained.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: it is damaged, or of other encoders; both are named.
    """
    trained, configured = load_tokenizer(run.lake, tokenizer).encoder, encoder_fingerprint(run.config.encoders)
    if trained != configured:
        raise JobError(
            f"tokenizer {tokenizer} was trained on vectors of encoders {trained}, configured are "
            f"encoders {configured}: train a tokenizer for these, or configure those"
        )
    return configured


def fill(run: Run, tokenizer: str, encoder: str) -> None:
    """Append the missing rows of ``semantic_ids`` under ``tokenizer`` from the stored vectors of its ``encoder``."""
    lake, commit_rows = run.lake, run.config.encoders.commit_rows
    with run.phase("pending"):
        run.read(ITEMS)
        run.read(EMBEDDINGS)
        live = live_items(lake).drop_columns(["file", "run_id"])
        pending = without(live, tokenized(lake, tokenizer), ["item_id", "content_hash"])
        located = pending.join(encoded(lake, encoder), "content_hash", join_type="inner")
        unencoded = pending.num_rows - located.num_rows
        run.count(rows_in=live.num_rows, skipped=live.num_rows - pending.num_rows, unencoded=unencoded)
    run.metrics |= {"tokenizer": tokenizer, "encoder": encoder}
    lake.create(SEMANTIC_IDS)
    before = lake.rows(SEMANTIC_IDS)
    with run.phase("tokenize"):
        for done, chunk in enumerate(chunks(located, commit_rows), start=1):
            _tokenize_chunk(run, chunk, tokenizer)
            logger.info("%s: committed chunk %d, %d items", run.job, done, chunk.rows.num_rows)
    run.count(rows_out=lake.rows(SEMANTIC_IDS) - before)
    run.wrote(SEMANTIC_IDS)


def load_tokenizer(lake: Lake, tokenizer: str, device: str = "cpu") -> artefact.Artefact:
    """A tokenizer of the lake.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: its files are broken, or those of another one.
    """
    try:
        found = artefact.load(local_folder(lake, "tokenizers", tokenizer), device=device)
    except TokenizerError as error:
        raise JobError(str(error)) from error
    refuse_another(lake, "tokenizers", tokenizer, found.fingerprint)
    return found


def _tokenize_chunk(run: Run, chunk: Chunk, tokenizer: str) -> None:
    lake = run.lake
    files = [lake.path(f"{EMBEDDINGS.name}/{file}") for file in chunk.files]
    columns = ["content_hash", "text_embedding", "image_embedding"]
    wanted = ray.put(chunk.rows.select(["item_id", "content_hash"]))
    (
        read_files(lake, files, columns, BATCH)
        .map_batches(
            TokenizeItems,
            batch_format="pyarrow",
            batch_size=BATCH,
            fn_constructor_args=(lake, tokenizer, run.run_id, wanted),
            **actor_pool(run.config.encoders.workers, -(-chunk.rows.num_rows // BATCH)),
        )
        .write_delta(lake.table_uri(SEMANTIC_IDS), storage_options=lake.storage_options or None)
    )


class TokenizeItems:
    """An actor that holds the tokenizer and turns vectors into rows of ``semantic_ids``, one an item."""

    def __init__(self, lake: Lake, tokenizer: str, run_id: str, wanted: "ray.ObjectRef | pa.Table") -> None:
        self._device = actor_device()
        self._tokenizer, self._run_id = tokenizer, run_id
        self._model = load_tokenizer(lake, tokenizer, self._device).model
        self._wanted = ray.get(wanted) if isinstance(wanted, ray.ObjectRef) else wanted

    def __call__(self, vectors: pa.Table) -> pa.Table:
        """The IDs of the wanted items whose content is in the batch.

        A modality that the tokenizer never saw in training counts as absent; an item that has no other gets no ID.
        """
        rows = vectors.filter(pc.is_in(vectors["content_hash"], value_set=self._wanted["content_hash"]))
        known = self._model.known()
        usable = [pc.is_valid(rows[f"{modality}_embedding"]) for modality in known]
        rows = rows.filter(pc.or_(*usable) if len(usable) == 2 else usable[0])
        text_ND, has_text_N = self._vectors(rows, "text", known)
        image_ND, has_image_N = self._vectors(rows, "image", known)
        inputs = (torch.from_numpy(a).to(self._device) for a in (text_ND, image_ND, has_text_N, has_image_N))
        codes_NS = self._model.encode(*inputs).cpu().tolist()
        layout = self._model.layout
        split = [layout.split(row) for row in codes_NS]
        contents = pa.table(
            {
                "content_hash": rows["content_hash"].combine_chunks().cast(pa.string()),
                "shared": pa.array([c.shared for c in split], SEMANTIC_IDS.schema.field("shared").type),
                "text": pa.array([c.text for c in split], SEMANTIC_IDS.schema.field("text").type),
                "image": pa.array([c.image for c in split], SEMANTIC_IDS.schema.field("image").type),
                "sid": pa.array([layout.format(c) for c in split], pa.string()),
                "has_text": pa.array(has_text_N),
                "has_image": pa.array(has_image_N),
            }
        )
        return self._for_items(contents)

    def _vectors(
        self, rows: pa.Table, modality: str, known: list[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        width = self._model.text_dim if modality == "text" else self._model.image_dim
        if modality not in known:
            return np.zeros((rows.num_rows, width), np.float32), np.zeros(rows.num_rows, bool)
        return to_matrix(rows[f"{modality}_embedding"], f"{modality}_embedding", width)

    def _for_items(self, contents: pa.Table) -> pa.Table:
        """One row an item: items of equal content share their codes, never their disambiguator."""
        items = self._wanted.filter(pc.is_in(self._wanted["content_hash"], value_set=contents["content_hash"]))
        where = pc.index_in(items["content_hash"], value_set=contents["content_hash"])
        rows = contents.take(where).drop_columns(["content_hash"])
        constant = {"tokenizer": self._tokenizer, "run_id": self._run_id}
        for name in ("item_id", "content_hash"):
            rows = rows.append_column(name, items[name])
        for name, value in constant.items():
            rows = rows.append_column(name, pa.array([value] * items.num_rows, pa.string()))
        numbers = pa.array(map(disambiguator, items["item_id"].to_pylist()), pa.int64())
        return SEMANTIC_IDS.conform(rows.append_column("disambiguator", numbers))

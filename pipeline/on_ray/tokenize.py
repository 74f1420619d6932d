"""Ray Data: the items of a plan, which brings their vectors, become rows of ``semantic_ids``."""

import logging
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.errors import JobError
from pipeline.lake.artefacts import local_folder, refuse_another
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.plan_reader import do_plan, read_columns, read_parts, stage_rows
from pipeline.on_ray.pools import Stage, block_rows, pool_for
from pipeline.on_ray.rows_done import rows_done
from pipeline.on_ray.session import worker_device
from pipeline.on_ray.vector_columns import to_matrix
from schemas.semantic_id import Layout
from schemas.tables import CODES, SEMANTIC_IDS
from tokenizer.base import artefact
from tokenizer.base.embeddings import TokenizerError
from tokenizer.base.tokenizer import Encoder

logger = logging.getLogger(__name__)

BATCH = 4096
COLUMNS = ["item_id", "item_hash", "content", "text_vector", "image_vector"]


def tokenize(run: Run, plan: Plan) -> None:
    """Append the IDs of the items in ``plan`` to ``semantic_ids``, a commit a chunk.

    Raises:
        ConfigError: the lake has no tokenizer of that fingerprint.
        JobError: it is damaged.
    """
    lake, tokenizer = run.lake, plan.facts["tokenizer"]
    load_tokenizer(lake, tokenizer)  # one that is damaged is refused here, not by every worker
    run.count(rows_out=0)
    with run.phase("tokenize"), run.progress.of(rows_done(plan.rows)):
        for chunk in do_plan(lake, plan, SEMANTIC_IDS, partial(_tokenize_chunk, run, plan, tokenizer)):
            logger.info(
                "%s: committed chunk %d of %d, %d IDs so far", run.job, chunk + 1, plan.chunks, run.counts["rows_out"]
            )
    run.wrote(SEMANTIC_IDS)


def load_tokenizer(lake: Lake, tokenizer: str, device: str = "cpu") -> artefact.Artefact:
    """A tokenizer of the lake.

    Raises:
        ConfigError: the lake has no such tokenizer.
        JobError: its files are broken, or those of another one.
    """
    try:
        with local_folder(lake, "tokenizers", tokenizer) as folder:
            found = artefact.load(folder, device=device)
    except TokenizerError as error:
        raise JobError(str(error)) from error
    refuse_another(lake, "tokenizers", tokenizer, found.fingerprint)
    return found


def _tokenize_chunk(run: Run, plan: Plan, tokenizer: str, chunk: int) -> list[str]:
    """Stage the IDs of a chunk: the files to commit."""
    lake, parts = run.lake, plan.parts(run.lake, chunk)
    rows = sum(pq.read_metadata(part, filesystem=lake.filesystem).num_rows for part in parts)
    pool = pool_for(rows, BATCH, run.config.encoders.workers)
    items = read_parts(
        lake, parts, partial(read_columns, columns=COLUMNS, rows=BATCH), block_rows(rows, BATCH, pool.workers)
    )
    stage = Stage(TokenizeItems, (lake, tokenizer, run.run_id), f"{tokenizer} {run.run_id}")
    ids = pool.map(items, stage, BATCH)
    files = stage_rows(ids, lake, SEMANTIC_IDS, {"tokenizer": tokenizer})
    for file in files:
        run.count(
            rows_out=pq.read_metadata(lake.path(f"{SEMANTIC_IDS.name}/{file}"), filesystem=lake.filesystem).num_rows
        )
    return files


class TokenizeItems:
    """Holds the tokenizer and turns items with their vectors into rows of ``semantic_ids``."""

    def __init__(self, lake: Lake, tokenizer: str, run_id: str) -> None:
        self._device = worker_device()
        self._tokenizer, self._run_id = tokenizer, run_id
        self._model = load_tokenizer(lake, tokenizer, self._device).model
        self._encode = Encoder(self._model)

    def __call__(self, items: pa.Table) -> pa.Table:
        """The IDs of the items of a batch.

        A modality that the tokenizer never saw in training counts as absent; an item that has no other gets no ID.
        """
        known = self._model.known()
        usable = [pc.is_valid(items[f"{modality}_vector"]) for modality in known]
        items = items.filter(pc.or_(*usable) if len(usable) == 2 else usable[0])
        text_ND, has_text_N = self._vectors(items, "text", known)
        image_ND, has_image_N = self._vectors(items, "image", known)
        inputs = (torch.from_numpy(a).to(self._device) for a in (text_ND, image_ND, has_text_N, has_image_N))
        codes_NS = self._encode(*inputs).cpu().numpy()
        count = items.num_rows
        rows = {
            **{name: items[name] for name in ("item_id", "item_hash", "content")},
            **code_columns(codes_NS, self._model.layout),
            "has_text": pa.array(has_text_N),
            "has_image": pa.array(has_image_N),
            "tokenizer": pa.repeat(self._tokenizer, count),
            "run_id": pa.repeat(self._run_id, count),
        }
        return SEMANTIC_IDS.conform(pa.table(rows).select(SEMANTIC_IDS.schema.names))

    def _vectors(
        self, items: pa.Table, modality: str, known: list[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        width = self._model.text_dim if modality == "text" else self._model.image_dim
        if modality not in known:
            return np.zeros((items.num_rows, width), np.float32), np.zeros(items.num_rows, bool)
        return to_matrix(items[f"{modality}_vector"], f"{modality} vectors", width)


def code_columns(codes_NS: NDArray[np.int16], layout: Layout) -> dict[str, pa.Array]:
    """``shared``, ``text``, ``image`` and ``sid`` of rows of codes (N, S), a column at a time.

    A part without a level is an empty list, that of an absent modality null.
    """
    columns: dict[str, pa.Array] = {}
    sid: pa.Array | None = None
    for part, span in layout.spans().items():
        codes_NL = np.ascontiguousarray(codes_NS[:, span])
        levels = codes_NL.shape[1]
        absent_N = codes_NL[:, 0] == layout.absent if levels else np.zeros(len(codes_NL), bool)
        offsets = pa.array(np.concatenate([[0], np.cumsum(levels * ~absent_N)]).astype(np.int32))
        present = pa.array(codes_NL[~absent_N].ravel(), pa.int16())
        columns[part] = pa.ListArray.from_arrays(offsets, present, mask=pa.array(absent_N)).cast(CODES)
        if levels:
            numbers = [pa.array(codes_NL[:, level]).cast(pa.string()) for level in range(levels)]
            said = pc.binary_join_element_wise(part[0], pc.binary_join_element_wise(*numbers, "-"), "")
            said = pc.if_else(
                pa.array(absent_N), "", said if sid is None else pc.binary_join_element_wise(".", said, "")
            )
            sid = said if sid is None else pc.binary_join_element_wise(sid, said, "")
    return columns | {"sid": sid}

"""Ray Data: the texts and pictures of a plan become vectors, each once, however many items have it.

What an encoder cannot make a vector of is stored as tried, with its fault, so that no later night trips over it.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from ray.data import Dataset

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import JobError
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.load import Encode, load_encoder
from pipeline.on_ray.encoders.model_files import said_of_length
from pipeline.on_ray.plan_reader import do_plan, read_parts, stage_rows
from pipeline.on_ray.session import actor_device, actor_pool, block_rows
from pipeline.on_ray.vector_columns import to_column
from schemas.semantic_id import MODALITIES
from schemas.tables import ITEMS, VECTORS

logger = logging.getLogger(__name__)

LONGEST_FAULT = 300  # characters


def encode(run: Run, plan: Plan) -> None:
    """Append a row to ``vectors`` for everything in ``plan``, a commit a chunk.

    ``run.counts`` has ``rows_out``, ``texts_encoded``, ``images_encoded`` and ``failed``.

    Raises:
        JobError: an encoder fails on whatever it is given; what was committed stays.
    """
    lake = run.lake
    run.count(rows_in=plan.rows, rows_out=0, texts_encoded=0, images_encoded=0, failed=0)
    text = run.config.encoders.text
    if isinstance(text, TextEncoder) and (cut := said_of_length(text)):
        logger.warning(cut)
    with run.phase("encode"):
        for chunk in do_plan(lake, plan, VECTORS, partial(_encode_chunk, run, plan)):
            logger.info(
                "encode: committed chunk %d of %d, %d vectors so far", chunk + 1, plan.chunks, run.counts["rows_out"]
            )
    run.wrote(VECTORS)


def _encode_chunk(run: Run, plan: Plan, chunk: int) -> list[str]:
    """Stage the vectors of a chunk: the files to commit."""
    lake, staged = run.lake, []
    parts = plan.parts(lake, chunk)
    for modality in MODALITIES:
        mine = [part for part in parts if f"/modality={modality}/" in part]
        if mine:
            rows = _encoded(run, modality, mine)
            staged += stage_rows(rows, lake, VECTORS, {"encoder": plan.facts["encoders"][modality]})
    _count(run, plan, staged)
    return staged


def _encoded(run: Run, modality: str, parts: list[str]) -> Dataset:
    settings = run.config.encoders.models[modality]
    batch = settings.batch_size
    rows = sum(pq.read_metadata(part, filesystem=run.lake.filesystem).num_rows for part in parts)
    pool = actor_pool(run.config.encoders.workers, -(-rows // batch))
    read = partial(read_inputs, modality=modality, rows=batch)
    inputs = read_parts(run.lake, parts, read, block_rows(rows, batch, pool["concurrency"]))
    return inputs.map_batches(
        EncodeInputs, batch_format="pyarrow", batch_size=batch, fn_constructor_args=(modality, settings), **pool
    )


def _count(run: Run, plan: Plan, staged: Sequence[str]) -> None:
    for modality, encoder in plan.facts["encoders"].items():
        for file in staged:
            if f"encoder={encoder}/" not in file:
                continue
            footer = pq.read_metadata(run.lake.path(f"{VECTORS.name}/{file}"), filesystem=run.lake.filesystem)
            fault = footer.schema.names.index("fault")
            groups = (footer.row_group(group).column(fault) for group in range(footer.num_row_groups))
            failed = sum(group.num_values - group.statistics.null_count for group in groups)
            run.count(rows_out=footer.num_rows, failed=failed, **{f"{modality}s_encoded": footer.num_rows})


def read_inputs(lake: Lake, part: str, *, modality: str, rows: int) -> Iterator[pa.Table]:
    """``sha`` and ``input`` of the texts or pictures that a part of a plan names, so many rows at a time.

    A part names rows of one file of ``items``, whose row groups are read one at a time, and of those one column.
    Texts of similar length come together, so that little is padded.
    """
    wanted = pq.read_table(lake.filesystem.open_input_file(part), columns=["sha", "file", "position"])
    if not wanted.num_rows:
        return
    path = lake.path(f"{ITEMS.name}/{wanted['file'][0].as_py()}")
    with lake.filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = wanted.filter((pc.field("position") >= start) & (pc.field("position") < stop))
            if here.num_rows:
                column = file.read_row_group(group, columns=[modality])[modality]
                found = pa.table({"sha": here["sha"], "input": column.take(pc.subtract(here["position"], start))})
                if modality == "text":
                    found = found.take(pc.sort_indices(pc.binary_length(found["input"])))
                for first in range(0, found.num_rows, rows):
                    yield found.slice(first, rows).combine_chunks()
            start = stop


class EncodeInputs:
    """An actor that holds one modality's encoder and turns texts or pictures into rows of ``vectors``."""

    def __init__(self, modality: str, settings: Encoder) -> None:
        self._modality, self._settings = modality, settings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """``sha``, ``vector`` and ``fault`` of a batch of ``sha`` and ``input``.

        Raises:
            JobError: the encoder does not load, or fails not on an input but on any.
        """
        inputs = batch["input"].to_pylist()
        if self._modality == "image":
            inputs = [Image.open(io.BytesIO(data)).convert("RGB") for data in inputs]
        vectors, faults = self._vectors(self._encode, inputs)
        if all(fault is not None for fault in faults):
            self._check_encoder()
        present_N = np.array([fault is None for fault in faults])
        width = max((len(vector) for vector in vectors if vector is not None), default=0)
        x_ND = np.array([np.zeros(width) if vector is None else vector for vector in vectors], np.float32)
        return pa.table(
            {
                "sha": batch["sha"],
                "vector": to_column(x_ND.reshape(len(inputs), width), present_N),
                "fault": pa.array(faults, pa.string()),
            }
        )

    @cached_property
    def _encode(self) -> Encode:
        """Loaded with the first batch: what a constructor raises, Ray tells as an actor's death."""
        return load_encoder(self._modality, self._settings, actor_device())

    def _vectors(self, encode: Encode, inputs: list[Any]) -> tuple[list[NDArray[np.float32] | None], list[str | None]]:
        """A vector or a fault of each input; a batch that raises is halved down to the inputs that make it raise."""
        try:
            x_ND = encode(inputs)
        except Exception as error:  # noqa: BLE001 - whatever an encoder raises on one input must not cost the others
            if len(inputs) == 1:
                return [None], [f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_FAULT]]
            half = len(inputs) // 2
            first, second = self._vectors(encode, inputs[:half]), self._vectors(encode, inputs[half:])
            return first[0] + second[0], first[1] + second[1]
        faults = [_fault(x_D) for x_D in x_ND]
        return [x_D if fault is None else None for x_D, fault in zip(x_ND, faults, strict=True)], faults

    def _check_encoder(self) -> None:
        """Where a whole batch fails, an input that nothing can be wrong with says whether the encoder is at fault."""
        probe = "A plain text." if self._modality == "text" else Image.effect_noise((64, 64), 50).convert("RGB")
        _, (fault,) = self._vectors(self._encode, [probe])
        if fault is not None:
            raise JobError(
                f"encoders.{self._modality}: {self._settings.model} gives no usable vector of anything ({fault}): "
                "mend or replace the model; nothing was recorded of this batch"
            )


def _fault(x_D: NDArray[np.float32]) -> str | None:
    if not np.isfinite(x_D).all():
        return "the vector is not finite"
    return None if x_D.any() else "the vector is zero"

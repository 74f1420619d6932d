"""Ray Data: the texts and pictures of a plan become vectors, each once, however many items have it.

What an encoder cannot make a vector of is stored as tried, with its fault, so that no later night trips over it; so is
what kills the process that encodes it, see :mod:`pipeline.on_ray.deaths`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import Dataset

from pipeline.config.encoders import TextEncoder
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.deaths import start_ledger
from pipeline.on_ray.encode_stages import EmbedBatches, EncodeInputs, Load, PrepareInputs
from pipeline.on_ray.encoders.load import load_encoder
from pipeline.on_ray.encoders.model_files import BUILTIN, said_of_length
from pipeline.on_ray.plan_reader import do_plan, read_parts, stage_rows
from pipeline.on_ray.pools import Pool, Stage, block_rows, pool_for
from pipeline.on_ray.rows_done import rows_done
from schemas.semantic_id import MODALITIES
from schemas.tables import ITEMS, VECTORS

logger = logging.getLogger(__name__)

MOST_BATCHES = {"text": 16, "image": 4}  # of a block: many texts are sorted by length, few pictures fit a block


def encode(run: Run, plan: Plan, load: Load = load_encoder) -> None:
    """Append a row to ``vectors`` for everything in ``plan``, a commit a chunk.

    ``load`` is for measurements. ``run.counts`` has ``rows_out``, ``texts_encoded``, ``images_encoded`` and ``failed``.

    Raises:
        JobError: an encoder fails on whatever it is given; what was committed stays.
    """
    lake = run.lake
    run.count(rows_in=plan.rows, rows_out=0, texts_encoded=0, images_encoded=0, failed=0)
    text = run.config.encoders.text
    if isinstance(text, TextEncoder) and (cut := said_of_length(text)):
        logger.warning(cut)
    ledger = start_ledger()
    with run.phase("encode"), run.progress.of(rows_done(plan.rows)):
        rows_of = partial(encoded, run, ledger=ledger, load=load)
        for chunk in do_plan(lake, plan, VECTORS, partial(_encode_chunk, run, plan, rows_of)):
            logger.info(
                "encode: committed chunk %d of %d, %d vectors so far", chunk + 1, plan.chunks, run.counts["rows_out"]
            )
    if killers := ray.get(ledger.given_up.remote()):
        logger.warning("encode: %d inputs killed the process that encoded them, and are stored as failed", killers)
    run.wrote(VECTORS)


def _encode_chunk(run: Run, plan: Plan, rows_of: Callable[[str, list[str]], Dataset], chunk: int) -> list[str]:
    """Stage the vectors of a chunk: the files to commit."""
    lake, staged = run.lake, []
    parts = plan.parts(lake, chunk)
    for modality in MODALITIES:
        mine = [part for part in parts if f"/modality={modality}/" in part]
        if mine:
            rows = rows_of(modality, mine)
            staged += stage_rows(rows, lake, VECTORS, {"encoder": plan.facts["encoders"][modality]})
    _count(run, plan, staged)
    return staged


def encoded(run: Run, modality: str, parts: list[str], ledger: Any, load: Load = load_encoder) -> Dataset:
    """Rows of ``vectors`` of what some parts of a plan name, streamed; ``load`` is for measurements."""
    settings = run.config.encoders.models[modality]
    batch = settings.batch_size
    rows = sum(pq.read_metadata(part, filesystem=run.lake.filesystem).num_rows for part in parts)
    has_model, most = settings.model != BUILTIN, MOST_BATCHES[modality]
    pool = pool_for(rows, batch, run.config.encoders.workers, most=most, on_gpu=has_model)
    read = partial(read_inputs, modality=modality, rows=batch)
    inputs = read_parts(run.lake, parts, read, block_rows(rows, batch, pool.workers, most))
    stage = partial(Stage, args=(modality, settings, ledger, load), name=f"{modality} {ledger}")
    if not pool.on_gpu:
        return pool.map(inputs, stage(EncodeInputs))
    return in_two_stages(inputs, stage, pool_for(rows, batch, most=most, on_gpu=False), pool)


def in_two_stages(inputs: Dataset, stage: Callable[[type], Stage], host: Pool, models: Pool) -> Dataset:
    """Work on the host on the cores that reading leaves, and the model on actors of its own, each with two blocks."""
    return models.map(host.map(inputs, stage(PrepareInputs)), stage(EmbedBatches), calls=2)


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

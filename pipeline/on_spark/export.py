"""Spark: the released IDs as a folder of files for programs that know no Delta, in one of three forms.

Every form has ``manifest.json``, which names the release that first held the rows, and ``items_by_sid/``, Parquet of
``sid`` and ``item_ids``. Besides

* ``parquet``: ``ids/``, the released rows;
* ``tokens``: ``ids/``, Parquet of ``item_id``, ``item_hash`` and ``tokens``, a string such as ``<a_3><b_9>``: a token a
  level, its letter the level's, ``<c_absent>`` where the item lacks the modality; and ``vocabulary.json``;
* ``tensor``: ``codes/NNNNN.safetensors`` with the int16 tensor ``codes`` of shape [levels, items of the shard], absent
  levels holding the codebook's size; and ``ids/NNNNN.parquet``, ``item_id`` and ``item_hash`` in the tensor's order.

Rows are in the order of ``item_id``, over all files. Executors write to the folder by its path, so on a cluster it must
be a mount that all of them have.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from safetensors.numpy import save_file

from pipeline.errors import ConfigError
from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.run import Run
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.expressions import filled_codes
from pipeline.release.pointer import require_release
from schemas.semantic_id import Layout
from schemas.tables import RELEASED_IDS

FORMS = ("parquet", "tokens", "tensor")
MANIFEST, VOCABULARY = "manifest.json", "vocabulary.json"
NAMES = {MANIFEST, VOCABULARY, "ids", "codes", "items_by_sid"}  # all that an export may hold
FILE_ROWS = 1_000_000  # of a Parquet file, or of a shard of the tensor: 16 MB at 8 levels
ATTEMPTS = "attempts"  # of tasks that may be done twice
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def export(spark: SparkSession, run: Run, folder: Path, form: str) -> Path:
    """Write the current release to ``folder`` in one of :data:`FORMS`.

    The folder appears whole, in place of an earlier export; between the two it is missing for a moment.

    Raises:
        ConfigError: there is no such form; ``folder`` is a file, or holds something that is no export.
        JobError: nothing is released.
    """
    if form not in FORMS:
        raise ConfigError(f"--format: {form!r} is none of {', '.join(FORMS)}")
    folder = folder.resolve()
    _refuse_other_things(folder)
    require_release(run.lake)
    run.read(RELEASED_IDS)
    rows = spark_delta(spark, run.lake, run.config.spark).read(RELEASED_IDS)
    of = rows.select("release", "tokenizer").first()  # said by the rows, whatever is published meanwhile
    assert of is not None
    layout = tokenizer_layout(run.lake, of["tokenizer"])
    half = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    half.mkdir(parents=True)
    try:
        with run.phase("write"):
            count = rows.count()
            manifest = {"written_by": "hisam export", "form": form, **of.asDict(), "rows": count}
            manifest |= {"layout": asdict(layout), "levels": layout.slot_names()}
            manifest |= _WRITERS[form](rows, layout, count, half)
            by_sid = rows.groupBy("sid").agg(F.sort_array(F.collect_list("item_id")).alias("item_ids"))
            _write_parquet(by_sid.orderBy("sid"), half / "items_by_sid")
            (half / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        _put_in_place(half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    run.count(rows_out=count)
    run.metrics |= {"form": form, **of.asDict()}
    return folder


def _rows(rows: DataFrame, layout: Layout, count: int, half: Path) -> dict[str, Any]:
    _write_parquet(rows.orderBy("item_id"), half / "ids")
    return {}


def _tokens(rows: DataFrame, layout: Layout, count: int, half: Path) -> dict[str, Any]:
    letters = F.array(*map(F.lit, level_letters(layout)))

    def token(pair: Column) -> Column:
        code = F.when(pair["code"] == layout.absent, "absent").otherwise(pair["code"].cast("string"))
        return F.concat(F.lit("<"), pair["letter"], F.lit("_"), code, F.lit(">"))

    pairs = F.arrays_zip(letters.alias("letter"), filled_codes(layout, layout.absent).alias("code"))
    named = rows.select("item_id", "item_hash", pairs.cast("array<struct<letter:string,code:smallint>>").alias("pairs"))
    tokens = F.concat_ws("", F.transform("pairs", token)).alias("tokens")
    _write_parquet(named.select("item_id", "item_hash", tokens).orderBy("item_id"), half / "ids")
    text = json.dumps(vocabulary(layout), indent=1)
    (half / VOCABULARY).write_text(text)
    return {"vocabulary": {"file": VOCABULARY, "sha256": hashlib.sha256(text.encode()).hexdigest()}}


def _tensor(rows: DataFrame, layout: Layout, count: int, half: Path) -> dict[str, Any]:
    for name in ("codes", "ids", ATTEMPTS):
        (half / name).mkdir()
    shards = max(1, -(-count // FILE_ROWS))
    ordered = rows.select("item_id", "item_hash", filled_codes(layout, layout.absent).alias("codes"))
    ordered = ordered.repartitionByRange(shards, "item_id").sortWithinPartitions("item_id")
    schema = "shard int, items bigint"
    written = ordered.mapInArrow(_shard_writer(half, layout.slots), schema).orderBy("shard").collect()
    shutil.rmtree(half / ATTEMPTS)
    return {
        "shards": [
            {"codes": f"codes/{_shard(n)}.safetensors", "ids": f"ids/{_shard(n)}.parquet", "items": items}
            for n, items in written
        ]
    }


_WRITERS: dict[str, Callable[[DataFrame, Layout, int, Path], dict[str, Any]]] = {
    "parquet": _rows,
    "tokens": _tokens,
    "tensor": _tensor,
}


def level_letters(layout: Layout) -> list[str]:
    """What names each level in a token: a, b, …, z, aa, ab, …"""
    n = len(ALPHABET)
    return [("" if i < n else ALPHABET[i // n - 1]) + ALPHABET[i % n] for i in range(layout.slots)]


def vocabulary(layout: Layout) -> dict[str, Any]:
    """``tokens``: the number of every token, its level's offset and its code; ``offsets``: of every level."""
    width = layout.codebook_size + 1
    tokens = {
        f"<{letter}_{'absent' if code == layout.absent else code}>": level * width + code
        for level, letter in enumerate(level_letters(layout))
        for code in range(width)
    }
    offsets = {name: level * width for level, name in enumerate(layout.slot_names())}
    return {"size": len(tokens), "offsets": offsets, "tokens": tokens}


def _shard_writer(half: Path, levels: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does: write the rows of its partition as one shard; a task that is done again writes it again."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context, found = TaskContext.get(), list(batches)
        assert context is not None
        if not sum(batch.num_rows for batch in found):
            return
        rows, name = pa.Table.from_batches(found), _shard(context.partitionId())
        codes_NL = np.asarray(pc.list_flatten(rows["codes"]).combine_chunks()).reshape(-1, levels)
        attempt = half / ATTEMPTS / str(context.taskAttemptId())
        save_file({"codes": np.ascontiguousarray(codes_NL.T)}, f"{attempt}.codes")
        pq.write_table(rows.select(["item_id", "item_hash"]), f"{attempt}.ids", compression="zstd")
        Path(f"{attempt}.codes").replace(half / "codes" / f"{name}.safetensors")
        Path(f"{attempt}.ids").replace(half / "ids" / f"{name}.parquet")
        yield pa.RecordBatch.from_pydict(
            {"shard": pa.array([context.partitionId()], pa.int32()), "items": pa.array([rows.num_rows], pa.int64())}
        )

    return write


def _shard(number: int) -> str:
    return f"{number:05}"


def _write_parquet(rows: DataFrame, folder: Path) -> None:
    uri = f"file://{folder}"  # as it is: Hadoop takes %20 for three characters
    rows.write.option("maxRecordsPerFile", FILE_ROWS).option("compression", "zstd").parquet(uri)


def _refuse_other_things(folder: Path) -> None:
    if folder.is_file():
        raise ConfigError(f"--to: {folder} is a file, not a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    strange = sorted(names - NAMES)
    if strange or (names and not _is_export(folder)):
        what = strange[0] if strange else "no manifest of an export"
        raise ConfigError(f"--to: {folder} holds {what}, so it stays as it is: name another folder")


def _is_export(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / MANIFEST).read_text())["written_by"] == "hisam export")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put_in_place(half: Path, folder: Path) -> None:
    old = half.with_suffix(".old")
    if folder.exists():
        folder.replace(old)
    half.replace(folder)
    shutil.rmtree(old, ignore_errors=True)

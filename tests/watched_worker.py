"""Prepare, as Spark's workers run it, in a process of its own: a crash or a hang of a decoder is seen and survived."""

import multiprocessing
import re
import resource
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.models import Catalog
from pipeline.on_spark.prepare import KNOWN as COMPARED
from pipeline.on_spark.prepare import PREPARED, Prepare

PATIENCE = 60  # seconds until a batch that has given no answer counts as hung
ADDRESS_SPACE = 6 * 2**30
KNOWN = tuple(f"known_{name}" for name in COMPARED)


def input_schema(catalog: Catalog) -> pa.Schema:
    """Of the batches that Spark hands to Prepare."""
    by_path = catalog.image is not None and catalog.image.root is not None
    fields = pa.struct([("title", pa.string()), ("body", pa.string())])
    names = ("item_id", "bad_row", "row_hash", "picture_stat", *KNOWN, *(("reference",) if by_path else ()))
    strings = [(name, pa.string()) for name in names]
    return pa.schema(
        [("row", pa.int64()), *strings, ("fields", fields), ("image", pa.binary()), ("image_bytes", pa.int64())]
    )


def _peak_bytes() -> int:
    """Of this process alone: what getrusage says begins with the memory of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def _serve(pipe: Connection, catalog: Catalog) -> None:
    from pipeline.on_ray.encoders.builtin import TextDescriptor

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prepare, schema, encoder = Prepare(catalog), input_schema(catalog), TextDescriptor()
    while True:
        rows = pipe.recv()
        batches = list(prepare(iter([pa.RecordBatch.from_pylist(rows, schema=schema)])))
        assert all(batch.schema == PREPARED for batch in batches)
        found = pa.Table.from_batches(batches).to_pylist()
        texts = [row["text"] for row in found if row["text"]]
        finite = bool(np.isfinite(encoder(texts)).all())
        pipe.send((found, finite, _peak_bytes()))


class WatchedWorker:
    """Calls :class:`Prepare` in a process that is started anew when it has died or hangs."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.peak_bytes = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._catalog), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The prepared rows; an ``AssertionError`` where the worker died, hung, or made a text no vector comes of."""
        self._pipe.send(rows)
        answered = self._pipe.poll(PATIENCE)
        try:
            if not answered:
                raise AssertionError(f"no answer within {PATIENCE} s")
            found, finite, peak = self._pipe.recv()
        except (AssertionError, EOFError, ConnectionResetError) as error:
            self.stop()
            status = self._process.exitcode
            self._start()
            raise AssertionError(f"the worker ended with {status}: {error}") from error
        assert finite
        self.peak_bytes = max(self.peak_bytes, peak)
        return list(found)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()

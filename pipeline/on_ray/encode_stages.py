"""The stages of ``encode``: one that does all of an encoder's work, or two, of which one alone holds the model.

Where a GPU computes, work on the host (decoding, resizing, tokenising) has the other cores, so that the model never
waits for it. Without one there is nothing to overlap: both halves then share a process and a core, which spares the way
through the object store between them.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as bytes_of

from pipeline.config.encoders import Encoder
from pipeline.errors import JobError
from pipeline.on_ray.deaths import TRIES, Rows, Watched
from pipeline.on_ray.encoders.load import Encode, load_encoder
from pipeline.on_ray.session import worker_device
from pipeline.on_ray.vector_columns import to_column

LONGEST_FAULT = 300  # characters
KILLED = f"the process that encoded it died {TRIES} times: it was killed (out of memory?) or crashed"

Load = Callable[[str, Encoder, str | None], Encode]


class _Stage(ABC):
    """Holds an encoder, loaded with the first block: what an actor's constructor raises, Ray tells as a death."""

    def __init__(self, modality: str, settings: Encoder, ledger: Any, load: Load = load_encoder) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core a worker
        self._modality, self._settings, self._load = modality, settings, load
        self._watched, self._one_at_a_time = Watched(ledger), Lock()
        self._named = f"encoders.{modality}: {settings.model}"

    def _batches(self, rows: Rows) -> list[Rows]:
        prepared = self._encoder.prepare(self._opened(rows.content))
        return [Rows([rows.keys[place] for place in places], batch) for places, batch in prepared]

    @property
    @abstractmethod
    def _encoder(self) -> Any:
        """Of the process's whole life."""

    def _loaded(self, device: str | None) -> Any:
        with self._watched.once("load", f"{self._named} kills the process that loads it: is there memory for it?"):
            return self._load(self._modality, self._settings, device)

    def _opened(self, inputs: list[Any]) -> list[Any]:
        if self._modality == "text":
            return inputs
        return [Image.open(io.BytesIO(data)).convert("RGB") for data in inputs]

    def _probe(self) -> list[Any]:
        """An input that nothing can be wrong with."""
        if self._modality == "text":
            return ["A plain text."]
        picture = io.BytesIO()
        Image.effect_noise((64, 64), 50).convert("RGB").save(picture, "PNG")
        return [picture.getvalue()]

    def _give_up(self, row: Rows, work: Callable[[Sequence[Rows]], Any]) -> list[Rows]:
        """Its fault, if the encoder survives an input that nothing is wrong with."""
        fault = f"{self._named} kills its process with whatever it is given: is there memory for it?"
        with self._watched.once("probe", fault, TRIES):
            work([Rows(["probe"], self._probe())])
        return [Rows(row.keys, fault=KILLED)]


class PrepareInputs(_Stage):
    """Texts or pictures to batches for :class:`EmbedBatches`, without the model."""

    def __call__(self, block: pa.Table) -> pa.Table:
        """A row a batch of a block of ``sha`` and ``input``: ``shas``, ``arrays`` (safetensors) or a ``fault``."""
        self._encoder  # noqa: B018 - what it raises is no input's fault
        rows = Rows(block["sha"].to_pylist(), block["input"].to_pylist())
        batches = self._watched.run([rows], self._settings.batch_size, self._prepared, self._given_up)
        return pa.table(
            {
                "shas": pa.array([batch.keys for batch in batches], pa.list_(pa.string())),
                "arrays": pa.array([None if b.fault else bytes_of(b.content) for b in batches], pa.large_binary()),
                "fault": pa.array([batch.fault for batch in batches], pa.string()),
            }
        )

    def _prepared(self, parts: Sequence[Rows]) -> list[Rows]:
        return [batch for part in parts for batch in isolated(self._batches, part)]

    def _given_up(self, row: Rows) -> list[Rows]:
        return self._give_up(row, self._prepared)

    @cached_property
    def _encoder(self) -> Any:
        return self._loaded(None)


class EmbedBatches(_Stage):
    """What :class:`PrepareInputs` makes to rows of ``vectors``, by the model.

    Two blocks may be here at once, in two threads: while one is unpacked or its vectors are written down, the device
    computes the other's.
    """

    def __call__(self, block: pa.Table) -> pa.Table:
        """``sha``, ``vector`` and ``fault`` of a block of batches."""
        batches = [
            Rows(row["shas"], None if row["fault"] else arrays_of(row["arrays"]), row["fault"])
            for row in block.to_pylist()
        ]
        sound = [batch for batch in batches if batch.fault is None]
        with self._one_at_a_time:
            self._encoder  # noqa: B018 - as above
            found = self._watched.run(sound, self._settings.batch_size, self._embedded, self._given_up)
        return vector_table([batch for batch in batches if batch.fault is not None] + self._checked(found))

    def _embedded(self, parts: Sequence[Rows]) -> list[Rows]:
        """All are launched before the first is fetched, so that the device has its next batch when it is done."""
        launched = [batch for part in parts for batch in isolated(self._launched, part)]
        return [
            batch if batch.fault is not None else Rows(batch.keys, self._encoder.fetch(batch.content))
            for batch in launched
        ]

    def _launched(self, rows: Rows) -> list[Rows]:
        return [Rows(rows.keys, self._encoder.embed(rows.content))]

    def _vectors(self, rows: Rows) -> list[Rows]:
        """From beginning to end."""
        return [Rows(rows.keys, self._encoder(self._opened(rows.content)))]

    def _given_up(self, row: Rows) -> list[Rows]:
        return self._give_up(row, lambda parts: [self._vectors(part) for part in parts])

    def _checked(self, found: list[Rows]) -> list[Rows]:
        """``found``, unless every row has a fault and so has an input that nothing can be wrong with.

        Raises:
            JobError: the encoder fails not on an input but on any.
        """
        faults = [fault for rows in found for fault in faults_of(rows)]
        if faults and all(fault is not None and fault != KILLED for fault in faults):
            (probed,) = isolated(self._vectors, Rows(["probe"], self._probe()))
            (fault,) = faults_of(probed)
            if fault is not None:
                raise JobError(
                    f"{self._named} gives no usable vector of anything ({fault}): "
                    "mend or replace the model; nothing was recorded of this batch"
                )
        return found

    @cached_property
    def _encoder(self) -> Any:
        return self._loaded(worker_device())


class EncodeInputs(EmbedBatches):
    """Texts or pictures to rows of ``vectors``, in one process."""

    def __call__(self, block: pa.Table) -> pa.Table:
        """``sha``, ``vector`` and ``fault`` of a block of ``sha`` and ``input``."""
        self._encoder  # noqa: B018 - as above
        rows = Rows(block["sha"].to_pylist(), block["input"].to_pylist())
        found = self._watched.run([rows], self._settings.batch_size, self._encoded, self._given_up)
        return vector_table(self._checked(found))

    def _encoded(self, parts: Sequence[Rows]) -> list[Rows]:
        if not hasattr(self._encoder, "prepare"):  # a descriptor
            return [batch for part in parts for batch in isolated(self._vectors, part)]
        prepared = [batch for part in parts for batch in isolated(self._batches, part)]
        sound = self._embedded([batch for batch in prepared if batch.fault is None])
        return sound + [batch for batch in prepared if batch.fault is not None]


def isolated(work: Callable[[Rows], list[Rows]], rows: Rows) -> list[Rows]:
    """``work`` on the rows; if it raises, on their halves, down to the rows that make it raise, whose fault that is."""
    try:
        return work(rows)
    except Exception as error:  # noqa: BLE001 - whatever an encoder raises on one input must not cost the others
        if len(rows) == 1:
            return [Rows(rows.keys, fault=f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_FAULT])]
    return [found for half in rows.halves() for found in isolated(work, half)]


def faults_of(rows: Rows) -> list[str | None]:
    """What is wrong with each row's vector, ``None`` of a sound one."""
    if rows.fault is not None:
        return [rows.fault] * len(rows)
    x_ND: NDArray[np.float32] = rows.content
    told_N = np.full(len(rows), None, object)
    told_N[~np.any(x_ND, axis=1)] = "the vector is zero"
    told_N[~np.all(np.isfinite(x_ND), axis=1)] = "the vector is not finite"
    return told_N.tolist()


def vector_table(found: Sequence[Rows]) -> pa.Table:
    """``sha``, ``vector`` and ``fault``; a vector or a fault a row."""
    faults = [fault for rows in found for fault in faults_of(rows)]
    width = max((rows.content.shape[1] for rows in found if rows.fault is None), default=0)
    x_ND = np.concatenate(
        [np.zeros((len(rows), width), np.float32) if rows.fault is not None else rows.content for rows in found]
    )
    present_N = np.array([fault is None for fault in faults])
    x_ND[~present_N] = 0
    if not present_N.any():
        x_ND = x_ND[:, :0]
    return pa.table(
        {
            "sha": pa.array([key for rows in found for key in rows.keys], pa.string()),
            "vector": to_column(x_ND, present_N),
            "fault": pa.array(faults, pa.string()),
        }
    )

"""Encoders that raise, make NaN, run out of memory or kill their process, as workers of Ray load them."""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.encoders import Encoder
from pipeline.on_ray.encoders.model_encoder import ModelEncoder
from pipeline.on_ray.encoders.token_batches import Batch, Places


class Fussy(ModelEncoder):
    """Three numbers a text; each text's first letters say what it does, in the model or, with ``host``, before it."""

    room = 4  # rows

    def __init__(self, *_: object) -> None:
        super().__init__("cpu", 8)
        self.sizes: list[int] = []

    def prepare(self, inputs: Sequence[str]) -> Iterator[tuple[Places, Batch]]:
        if any(text.startswith("host kill") for text in inputs):
            os._exit(1)
        for first in range(0, len(inputs), 8):
            texts = inputs[first : first + 8]
            yield np.arange(first, first + len(texts)), {"codes": np.array([_code(text) for text in texts])}

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        codes_N = tensors["codes"]
        self.sizes.append(len(codes_N))
        if (codes_N == 1).any():
            raise RuntimeError("cannot read this")
        if (codes_N == 3).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (codes_N == 4).any() and len(codes_N) > self.room:
            raise torch.OutOfMemoryError("no room")
        x_ND = torch.ones(len(codes_N), 3)
        x_ND[codes_N == 2, 0] = torch.nan
        return x_ND


def _code(text: str) -> int:
    return ["", "raise", "nan", "kill", "large"].index(
        next((w for w in ("raise", "nan", "kill", "large") if w in text), "")
    )


def fussy(modality: str, settings: Encoder, device: str | None) -> Any:
    return Fussy()


def broken(modality: str, settings: Encoder, device: str | None) -> Any:
    """Kills its process with whatever it is given."""
    encoder = Fussy()
    encoder.forward = lambda tensors: os._exit(1)  # type: ignore[method-assign]
    return encoder

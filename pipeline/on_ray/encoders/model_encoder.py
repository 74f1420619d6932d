"""What every encoder with a model has in common: work on the host before it, and batches that a device computes.

Letters: N rows of a batch, D numbers of a vector.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.on_ray.encoders.token_batches import Batch, Places

DEVICE_FAILED = 70  # exit status of a process whose device answers nothing any more


class ModelEncoder(ABC):
    """Texts or RGB pictures to batches on the host (:meth:`prepare`), and those to vectors on a device (:meth:`embed`).

    Without a device no weights are loaded, and there is :meth:`prepare` alone.
    """

    def __init__(self, device: str | None, batch_size: int) -> None:
        self._device, self._batch_size = device, batch_size
        self._most_cells: int | None = None  # of a batch's largest array, once one did not fit the device's memory

    @abstractmethod
    def prepare(self, inputs: Sequence[Any]) -> Iterator[tuple[Places, Batch]]:
        """Batches for :meth:`embed`, each of at most ``batch_size`` rows, with the places of its rows in ``inputs``."""

    @abstractmethod
    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        """``(N, D)``, of any length, of a batch that is on the device."""

    def embed(self, batch: Batch) -> Tensor:
        """``(N, D)`` float32 rows of length one, one of zeros left as it is; on the device, perhaps not computed yet.

        A batch that does not fit the device's memory is halved, and so are all later ones of its size.

        Raises:
            torch.OutOfMemoryError: there is no room for a single row.
        """
        rows, cells = len(next(iter(batch.values()))), max(array.size for array in batch.values())
        if rows == 1 or self._most_cells is None or cells <= self._most_cells:
            try:
                return self._launched(batch)
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                self._most_cells = cells // 2
            torch.cuda.empty_cache()  # only now that the error, and the tensors it holds, are gone
        half = rows // 2
        parts = ({name: array[part] for name, array in batch.items()} for part in (slice(half), slice(half, None)))
        return torch.cat([self.embed(part) for part in parts])

    @torch.inference_mode()
    def _launched(self, batch: Batch) -> Tensor:
        with _while_the_device_answers():
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            if self._device != "cpu":
                tensors = {name: x.pin_memory().to(self._device, non_blocking=True) for name, x in tensors.items()}
            return torch.nn.functional.normalize(self.forward(tensors).float(), dim=1)

    @staticmethod
    def fetch(x_ND: Tensor) -> NDArray[np.float32]:
        """The vectors on the host, when they have been computed."""
        with _while_the_device_answers():
            return x_ND.cpu().numpy()

    def __call__(self, inputs: Sequence[Any]) -> NDArray[np.float32]:
        """``(N, D)`` float32 rows of length one, from beginning to end."""
        prepared = list(self.prepare(inputs))
        x_ND = np.concatenate([self.fetch(self.embed(batch)) for _, batch in prepared])
        return x_ND[np.argsort(np.concatenate([places for places, _ in prepared]))]


def pooler_found(model: Any, missing: Collection[str]) -> bool:
    """Whether all of a model came from its files; nothing but a pooler may be ``missing``, as transformers names it.

    Raises:
        ValueError: anything else is, which transformers has drawn at random, differently in every process.
    """
    lacking = sorted(name for name in missing if "pooler." not in name)
    if lacking:
        more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
        raise ValueError(f"the weights lack {lacking[0]}{more} that {type(model).__name__} has: fetch it again")
    return not missing


@contextmanager
def _while_the_device_answers() -> Iterator[None]:
    """End the process if its device has failed: nothing else makes it compute again, and what is begun is known."""
    try:
        yield
    except torch.AcceleratorError:
        os._exit(DEVICE_FAILED)

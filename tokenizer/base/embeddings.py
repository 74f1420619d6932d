"""What the tokenizer reads: the encoders' embeddings of a catalogue, and which of them are there.

Tensor names end in their shape: N items, D embedding width of the modality.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from schemas.semantic_id import MODALITIES as MODALITIES  # for those who read embeddings, too

BLOCK = 4096  # rows worked on at a time, which bounds memory


class TokenizerError(ValueError):
    """The embeddings, the configuration or the artefact do not let the tokenizer do its work."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N items; rows of an absent modality may hold anything.

    ``text_ND`` and ``image_ND`` are floats of any width and need not be normalised, ``has_text_N`` and ``has_image_N``
    are bool. They may be memory-mapped files: nothing here reads more than a block of rows at a time, but ``to`` and
    ``normalised``, which are for batches.

    Raises:
        TokenizerError: shapes that do not fit each other, or wrong dtypes.
    """

    text_ND: Tensor
    image_ND: Tensor
    has_text_N: Tensor
    has_image_N: Tensor

    def __post_init__(self) -> None:
        for modality in MODALITIES:
            x_ND, has_N = self.vectors(modality), self.present(modality)
            if x_ND.ndim != 2 or x_ND.shape[1] == 0 or not x_ND.is_floating_point():
                raise TokenizerError(
                    f"{modality} embeddings must be a float matrix, not {tuple(x_ND.shape)} {x_ND.dtype}"
                )
            if has_N.dtype != torch.bool or has_N.shape != (len(self.text_ND),) or len(x_ND) != len(has_N):
                raise TokenizerError(
                    f"{len(self.text_ND)} items need a bool presence of the {modality} for each; "
                    f"got {tuple(has_N.shape)} {has_N.dtype} for {len(x_ND)} {modality} embeddings"
                )

    def __len__(self) -> int:
        return len(self.has_text_N)

    def vectors(self, modality: str) -> Tensor:
        """The embeddings of ``"text"`` or ``"image"``, (N, D)."""
        return self.text_ND if modality == "text" else self.image_ND

    def present(self, modality: str) -> Tensor:
        """Which items have the modality, (N,) bool."""
        return self.has_text_N if modality == "text" else self.has_image_N

    @property
    def has_both_N(self) -> Tensor:
        """Which items have text and image, (N,) bool."""
        return self.has_text_N & self.has_image_N

    def select(self, index: Tensor | slice) -> "Embeddings":
        """The items at ``index`` (positions, a mask or a slice)."""
        return Embeddings(self.text_ND[index], self.image_ND[index], self.has_text_N[index], self.has_image_N[index])

    def only(self, *modalities: str) -> "Embeddings":
        """The same items with every other modality withheld."""
        none_N = torch.zeros_like(self.has_text_N)
        kept = {name: self.present(name) if name in modalities else none_N for name in MODALITIES}
        return Embeddings(self.text_ND, self.image_ND, kept["text"], kept["image"])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Embeddings":
        """The embeddings on a device and in a float type."""
        return Embeddings(
            self.text_ND.to(device, dtype),
            self.image_ND.to(device, dtype),
            self.has_text_N.to(device),
            self.has_image_N.to(device),
        )

    def blocks(self) -> "Iterator[Embeddings]":
        """The items in order, a block at a time."""
        for start in range(0, len(self), BLOCK):
            yield self.select(slice(start, start + BLOCK))

    def normalised_blocks(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Iterator[Embeddings]":
        """The blocks as :meth:`to` and :meth:`normalised` make them.

        Raises:
            TokenizerError: as :meth:`normalised`; the message names the row.
        """
        for number, block in enumerate(self.blocks()):
            yield block.to(device, dtype).normalised(first_row=number * BLOCK)

    def check_usable(self) -> None:
        """Read every embedding once.

        Raises:
            TokenizerError: as :meth:`normalised`.
        """
        for _ in self.normalised_blocks():
            pass

    def normalised(self, first_row: int = 0) -> "Embeddings":
        """Present rows at unit length, absent rows zero.

        Raises:
            TokenizerError: a present embedding is zero, NaN or infinite, or an item has neither modality.
        """
        if not bool((self.has_text_N | self.has_image_N).all()):
            row = first_row + int((~(self.has_text_N | self.has_image_N)).nonzero()[0])
            raise TokenizerError(f"item {row} has neither text nor image; leave such items out")
        return Embeddings(
            self._unit("text", first_row), self._unit("image", first_row), self.has_text_N, self.has_image_N
        )

    def _unit(self, modality: str, first_row: int) -> Tensor:
        has_N = self.present(modality)
        x_ND = self.vectors(modality).masked_fill(~has_N[:, None], 0.0)
        largest_N = x_ND.abs().amax(dim=1)
        bad_N = has_N & ~(torch.isfinite(largest_N) & (largest_N > 0))
        if bool(bad_N.any()):
            row = int(bad_N.nonzero()[0])
            what = "all zero" if float(largest_N[row]) == 0 else "NaN or infinite"
            raise TokenizerError(
                f"{int(bad_N.sum())} of {int(has_N.sum())} {modality} embeddings are unusable; the first, in "
                f"row {first_row + row}, is {what}. Encode these items again or mark their {modality} absent"
            )
        # The largest component goes first, so that tiny and huge vectors neither vanish nor overflow.
        return F.normalize(x_ND / largest_N.masked_fill(~has_N, 1.0)[:, None], dim=1)


def sample(count: int, most: int, seed: int = 0) -> Tensor:
    """Positions (min(count, most),) int64 of that many of ``count`` items, in order; equal arguments give the same."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values

"""What every tokenizer can do, whatever its method: embeddings of items to rows of codes, and back.

N items, E embedding width of a modality, D width of a code space, S slots.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from schemas.semantic_id import Layout
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.base.networks import Network
from tokenizer.base.rounding import Bound

Bounds = Mapping[nn.Module, Bound]


@dataclass(frozen=True)
class Parts:
    """Sums of the codebook vectors of an item's shared, text and image codes, each (N, D); absent parts are zero."""

    shared_ND: Tensor
    text_ND: Tensor
    image_ND: Tensor

    @classmethod
    def shared_alone(cls, shared_ND: Tensor) -> "Parts":
        """Of a method that has no parts but the shared one."""
        return cls(shared_ND, torch.zeros_like(shared_ND), torch.zeros_like(shared_ND))


class Tokenizer(nn.Module, ABC):
    """Codes of items from their text and image embeddings, and embeddings from codes.

    A new tokenizer knows nothing: :func:`tokenizer.training.fitting.fit` makes a useful one. ``text_dim`` and
    ``image_dim`` are the widths of the embeddings; ``seen_2`` tells which of ``MODALITIES`` any training item had.
    """

    seen_2: Tensor

    def __init__(self, config: TokenizerConfig, text_dim: int, image_dim: int) -> None:
        super().__init__()
        self.config = config
        self.text_dim, self.image_dim = text_dim, image_dim
        self.register_buffer("seen_2", torch.zeros(2, dtype=torch.bool))

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """The trained tokenizer of a folder, in eval mode; :func:`tokenizer.load` has its encoders and figures, too.

        Raises:
            TokenizerError: the folder does not hold a whole tokenizer, or one of another method.
        """
        from tokenizer.base.artefact import load  # which knows the methods, and they know this class

        model = load(folder, device).model
        if not isinstance(model, cls):
            raise TokenizerError(f"{folder} holds a tokenizer of method {model.config.method}, not a {cls.__name__}")
        return model

    @property
    def layout(self) -> Layout:
        """The slots of a row of codes."""
        return self.config.layout()

    @property
    def device(self) -> torch.device:
        """Where the tokenizer computes."""
        return self.seen_2.device

    def known(self) -> list[str]:
        """The modalities that any training item had."""
        return [m for m, seen in zip(MODALITIES, self.seen_2.tolist(), strict=True) if seen]

    def readable(self, items: Embeddings) -> Embeddings:
        """What of the items this tokenizer can read: no modality that no training item had, no item that has no other.

        It copies embeddings only where items are left out.
        """
        withheld = items.only(*self.known())
        has_N = withheld.has_text_N | withheld.has_image_N
        return withheld if bool(has_N.all()) else withheld.select(has_N)

    @torch.no_grad()
    def encode(self, text_ND: Tensor, image_ND: Tensor, has_text_N: Tensor, has_image_N: Tensor) -> Tensor:
        """Codes (N, S) int16 of embeddings that need not be normalised.

        See :class:`Encoder`, which spares copying the tokenizer for every call.
        """
        return Encoder(self)(text_ND, image_ND, has_text_N, has_image_N)

    @torch.no_grad()
    def decode(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Text (N, E) and image (N, E) float32 embeddings that the codes (N, S) stand for.

        A function of the codes alone; about, not exactly, unit length. An absent modality is predicted from the
        shared codes; one that no training item had is zero. Call it in eval mode, as ``fit`` and ``load`` leave it.

        Raises:
            TokenizerError: rows of another length, or a code outside the codebook.
        """
        return self.restore(self._checked(codes_NS))

    def parts(self, codes_NS: Tensor) -> Parts:
        """The code vectors of each part of the rows ``codes_NS`` (N, S).

        Raises:
            TokenizerError: as :meth:`decode`.
        """
        return self.look_up(self._checked(codes_NS))

    @abstractmethod
    def assign(self, items: Embeddings, bounds: Bounds | None = None) -> tuple[Tensor, Tensor]:
        """Codes (N, S) int64 of normalised embeddings on the tokenizer's device.

        And which rows would have the same codes in exact arithmetic, (N,) bool, where ``bounds`` has the bound of every
        network of this tokenizer; without it the networks count as exact.
        """

    def bounds(self) -> Bounds:
        """How far every network is from exact in the tokenizer's precision."""
        return {module: module.bound() for module in self.modules() if isinstance(module, Network)}

    @abstractmethod
    def restore(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Text and image embeddings, (N, E) each, of valid codes (N, S) int64."""

    @abstractmethod
    def look_up(self, codes_NS: Tensor) -> Parts:
        """Code vectors of valid codes (N, S) int64."""

    def _checked(self, codes_NS: Tensor) -> Tensor:
        layout = self.layout
        if codes_NS.ndim != 2 or codes_NS.shape[1] != layout.slots:
            raise TokenizerError(
                f"codes of shape {tuple(codes_NS.shape)} do not have the {layout.slots} slots of {layout}"
            )
        codes_NS = codes_NS.to(self.device, torch.int64)
        shared_NL = codes_NS[:, layout.spans()["shared"]]
        if bool(((codes_NS < 0) | (codes_NS > layout.absent)).any()) or bool((shared_NL == layout.absent).any()):
            raise TokenizerError(f"codes must lie in 0 to {layout.absent - 1}; only text and image slots may be absent")
        return codes_NS

    def refuse_unknown(self, items: Embeddings) -> None:
        """Raise a TokenizerError for embeddings that a tokenizer so trained cannot read."""
        known = self.known()
        if not known:
            raise TokenizerError("this tokenizer has not been trained; fit it or load an artefact")
        for m, trained in zip(MODALITIES, (self.text_dim, self.image_dim), strict=True):
            width = items.vectors(m).shape[1]
            if width != trained:
                raise TokenizerError(
                    f"{m} embeddings have {width} dimensions, but the tokenizer was trained on {trained}; "
                    "use the encoder it was trained with, or train a new one"
                )
            if m not in known and bool(items.present(m).any()):
                raise TokenizerError(f"the tokenizer was trained without any {m}; withhold the {m} or train a new one")


class Encoder:
    """Codes of items by a tokenizer as it is now, as float64 would have them, most of them found in float32.

    The codes are a pure function of each row alone, whatever the batch, its order and the device: those of float64,
    where the rounding that differs between batch shapes is far smaller than the gap between codes, the lowest of tied
    ones. float32 finds them for the rows whose decisions all have more room than its rounding takes, see
    :mod:`tokenizer.base.rounding`; the others are computed again.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.exact = copy.deepcopy(tokenizer).double().eval()
        single = all(x.dtype == torch.float32 for x in tokenizer.state_dict().values() if x.is_floating_point())
        self.fast = copy.deepcopy(tokenizer).eval() if single else None
        self._bounds = self.fast.bounds() if self.fast else {}

    @torch.no_grad()
    def __call__(self, text_ND: Tensor, image_ND: Tensor, has_text_N: Tensor, has_image_N: Tensor) -> Tensor:
        """Codes (N, S) int16 of embeddings that need not be normalised.

        The slots of an absent modality hold ``absent``; what stands in its row does not matter.

        Raises:
            TokenizerError: wrong shapes, a present embedding that is zero or not finite, an item with neither modality,
                a modality that no training item had, or a tokenizer that has not been trained.
        """
        items = Embeddings(text_ND, image_ND, has_text_N, has_image_N)
        self.exact.refuse_unknown(items)
        device = self.exact.device
        codes_NS = torch.empty(len(items), self.exact.layout.slots, dtype=torch.int16, device=device)
        unsure_N = torch.ones(len(items), dtype=torch.bool, device=device)
        if self.fast is not None and all(items.vectors(m).dtype != torch.float64 for m in MODALITIES) and _ieee():
            start = 0
            for block in items.normalised_blocks(device):
                rows = slice(start, start := start + len(block))
                block_codes_NS, sure_N = self.fast.assign(block, self._bounds)
                codes_NS[rows], unsure_N[rows] = block_codes_NS.to(torch.int16), ~sure_N
        rows_U = unsure_N.nonzero()[:, 0]
        rest = items if len(rows_U) == len(items) else items.select(rows_U.to(text_ND.device))
        start = 0
        for block in rest.normalised_blocks(device, torch.float64):
            rows = slice(start, start := start + len(block))
            codes_NS[rows_U[rows]] = self.exact.assign(block)[0].to(torch.int16)
        return codes_NS


def _ieee() -> bool:
    """Whether float32 is computed as such, not as TensorFloat-32 or bfloat16."""
    return torch.get_float32_matmul_precision() == "highest"

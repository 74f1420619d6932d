"""The Disentangled Semantic Tokenizer (Hi-SAM): two embeddings of an item to one row of codes, and back.

N items, E embedding width of a modality, D width of the code space, L levels, S slots.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemas.semantic_id import Layout
from tokenizer.alignment import consensus
from tokenizer.branch import Branch
from tokenizer.config import TokenizerConfig
from tokenizer.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.quantiser import ResidualQuantiser

BLOCK = 4096  # rows encoded at a time, which bounds memory


@dataclass(frozen=True)
class Parts:
    """Sums of the codebook vectors of an item's shared, text and image codes, each (N, D); absent parts are zero."""

    shared_ND: Tensor
    text_ND: Tensor
    image_ND: Tensor


class DST(nn.Module):
    """Codes of items from their text and image embeddings, and embeddings from codes.

    A new tokenizer knows nothing: :func:`tokenizer.training.fit` makes a useful one.
    """

    def __init__(self, config: TokenizerConfig, text_dim: int, image_dim: int) -> None:
        super().__init__()
        self.config = config
        shape = config.dim, config.hidden, config.dropout
        self.text = Branch(text_dim, *shape, config.text_levels, config.codebook_size)
        self.image = Branch(image_dim, *shape, config.image_levels, config.codebook_size)
        self.shared = ResidualQuantiser(config.shared_levels, config.codebook_size, config.dim)

    @property
    def layout(self) -> Layout:
        """The slots of a row of codes."""
        return self.config.layout()

    @property
    def device(self) -> torch.device:
        """Where the tokenizer computes."""
        return self.shared.codebooks_LKD.device

    @property
    def text_dim(self) -> int:
        """Width of the text embeddings."""
        return self.text.width

    @property
    def image_dim(self) -> int:
        """Width of the image embeddings."""
        return self.image.width

    def branch(self, modality: str) -> Branch:
        """The networks of ``"text"`` or ``"image"``."""
        return self.text if modality == "text" else self.image

    def merge(self, z_text_BD: Tensor, z_image_BD: Tensor, has_text_B: Tensor, has_image_B: Tensor) -> Tensor:
        """What the shared quantiser reads, (B, D): the consensus at length √D, where components have unit spread."""
        return consensus(z_text_BD, z_image_BD, has_text_B, has_image_B) * self.config.dim**0.5

    @torch.no_grad()
    def encode(self, text_ND: Tensor, image_ND: Tensor, has_text_N: Tensor, has_image_N: Tensor) -> Tensor:
        """Codes (N, S) int16 of embeddings that need not be normalised.

        A pure function of each row alone, whatever the batch, its order and the device: it computes in float64,
        where the rounding that differs between batch shapes is far smaller than the gap between codes, and takes the
        lowest of tied codes. The slots of an absent modality hold ``absent``; what stands in its row does not matter.

        Raises:
            TokenizerError: wrong shapes, a present embedding that is zero or not finite, an item with neither modality,
                a modality that no training item had, or a tokenizer that has not been trained.
        """
        items = Embeddings(text_ND, image_ND, has_text_N, has_image_N)
        self._refuse_unknown(items)
        exact = copy.deepcopy(self).double().eval()
        blocks = [exact._encode(items.select(slice(i, i + BLOCK))) for i in range(0, len(items), BLOCK)]
        return torch.cat([torch.zeros(0, self.layout.slots, dtype=torch.int16, device=self.device), *blocks])

    def _encode(self, items: Embeddings) -> Tensor:
        items = items.to(self.device, torch.float64).normalised()
        x_text_NE, x_image_NE = self.text.standardise(items.text_ND), self.image.standardise(items.image_ND)
        z_text_ND, z_image_ND = self.text.align(x_text_NE), self.image.align(x_image_NE)
        shared_NL = self.shared.encode(self.merge(z_text_ND, z_image_ND, items.has_text_N, items.has_image_N))
        q_shared_ND = self.shared.lookup(shared_NL)
        codes = [shared_NL]
        for m, x_NE in zip(MODALITIES, (x_text_NE, x_image_NE), strict=True):
            branch = self.branch(m)
            own_NL = branch.quantiser.encode(branch.left_over(x_NE, q_shared_ND))
            codes.append(own_NL.masked_fill(~items.present(m)[:, None], self.layout.absent))
        return torch.cat(codes, dim=1).to(torch.int16)

    @torch.no_grad()
    def decode(self, codes_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Text (N, E) and image (N, E) float32 embeddings that the codes (N, S) stand for.

        A function of the codes alone; about, not exactly, unit length. An absent modality is predicted from the
        shared codes; one that no training item had is zero. Call it in eval mode, as ``fit`` and ``load`` leave it.

        Raises:
            TokenizerError: rows of another length, or a code outside the codebook.
        """
        parts = self.parts(codes_NS)
        rebuilt = []
        for m, own_ND in zip(MODALITIES, (parts.text_ND, parts.image_ND), strict=True):
            branch = self.branch(m)
            absent_N = (codes_NS[:, self.layout.spans()[m]] == self.layout.absent).any(dim=1).to(self.device)
            x_NE = torch.where(
                absent_N[:, None], branch.predict(parts.shared_ND), branch.rebuild(parts.shared_ND, own_ND)
            )
            rebuilt.append(branch.restore(x_NE))
        return rebuilt[0], rebuilt[1]

    def parts(self, codes_NS: Tensor) -> Parts:
        """The code vectors of each part of the rows ``codes_NS`` (N, S)."""
        layout, spans = self.layout, self.layout.spans()
        if codes_NS.ndim != 2 or codes_NS.shape[1] != layout.slots:
            raise TokenizerError(
                f"codes of shape {tuple(codes_NS.shape)} do not have the {layout.slots} slots of {layout}"
            )
        codes_NS = codes_NS.to(self.device, torch.int64)
        shared_NL = codes_NS[:, spans["shared"]]
        if bool(((codes_NS < 0) | (codes_NS > layout.absent)).any()) or bool((shared_NL == layout.absent).any()):
            raise TokenizerError(f"codes must lie in 0 to {layout.absent - 1}; only text and image slots may be absent")
        own = []
        for m in MODALITIES:
            own_NL = codes_NS[:, spans[m]]
            absent_NL = own_NL == layout.absent
            vectors_ND = self.branch(m).quantiser.lookup(own_NL.masked_fill(absent_NL, 0))
            own.append(vectors_ND.masked_fill(absent_NL.any(dim=1, keepdim=True), 0.0))
        return Parts(self.shared.lookup(shared_NL), own[0], own[1])

    def _refuse_unknown(self, items: Embeddings) -> None:
        if not bool(self.shared.initialised):
            raise TokenizerError("this tokenizer has not been trained; fit it or load an artefact")
        for m in MODALITIES:
            branch, width = self.branch(m), items.vectors(m).shape[1]
            if width != branch.width:
                raise TokenizerError(
                    f"{m} embeddings have {width} dimensions, but the tokenizer was trained on {branch.width}; "
                    "use the encoder it was trained with, or train a new one"
                )
            if not bool(branch.seen) and bool(items.present(m).any()):
                raise TokenizerError(f"the tokenizer was trained without any {m}; withhold the {m} or train a new one")

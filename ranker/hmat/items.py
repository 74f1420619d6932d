"""What a ranker knows of an item: learned vectors of its codes, one of its own, the decoded vectors of its codes.

The first two are free to learn an item by heart; the third is a frozen function of the codes and says what an item is
like. So that a new item can stand on it (our departure from the paper), the free parts are hidden for random items
in training, and after it for every item that training never met.

Letters: B windows, N items, T semantic tokens, E width, C codes of all slots (the absent ones included), V width of the
decoded vectors, all modalities side by side, I items that have a vector of their own.
"""

import torch
from torch import Tensor, nn

from ranker.config import RankerConfig
from schemas.semantic_id import Layout

EMBEDDING_STD = 0.1


class ItemEmbedding(nn.Module):
    """An item's tokens, and what is known of it as a whole."""

    def __init__(self, config: RankerConfig, layout: Layout, decoded_CV: Tensor | None) -> None:
        super().__init__()
        self.dim, self.free_dropout = config.dim, config.free_dropout
        rows = layout.codebook_size + 1
        self.offset_T: Tensor
        self.register_buffer("offset_T", torch.arange(layout.slots) * rows, persistent=False)
        self.codes = nn.Embedding(layout.slots * rows, config.dim) if config.codes else None
        if self.codes is not None:
            nn.init.normal_(self.codes.weight, std=EMBEDDING_STD)
        self.identity = ItemIdentity(config) if config.item_id else None
        self.decoded = DecodedVectors(decoded_CV, config) if decoded_CV is not None else None

    @property
    def tokens_alone(self) -> bool:
        """Whether the codes' own vectors are all that is known of an item."""
        return self.identity is None and self.decoded is None

    def forward(self, tokens_BNT: Tensor, items_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Of int64 codes and hashes of item IDs: the tokens ``(B, N, T, E)``, T = 0 without code tables, and the items
        as wholes ``(B, N, E)``, zero where the tokens are all."""
        rows_BNT = tokens_BNT + self.offset_T
        x_BNTE = self._empty(*tokens_BNT.shape[:2], 0) if self.codes is None else self.codes(rows_BNT)
        id_BNE = self._empty(*items_BN.shape) if self.identity is None else self.identity(items_BN)
        if self.free_dropout:
            free_BN1 = self._free(id_BNE)
            x_BNTE, id_BNE = x_BNTE * free_BN1[..., None], id_BNE * free_BN1
        return x_BNTE, id_BNE if self.decoded is None else id_BNE + self.decoded(rows_BNT)

    def content(self, tokens_BNT: Tensor) -> Tensor | None:
        """Decoded vectors ``(B, N, V)``, if the ranker has any."""
        return None if self.decoded is None else self.decoded.sums(tokens_BNT + self.offset_T)

    def know(self, hash_I: Tensor) -> None:
        """Give the items of these hashes, int64 and ascending, a vector of their own, zero to begin with."""
        assert self.identity is not None
        self.identity.know(hash_I)

    def _free(self, id_BNE: Tensor) -> Tensor:
        """``(B, N, 1)``, 1 where an item's free parts are seen."""
        if self.training:
            return torch.empty_like(id_BNE[..., :1]).bernoulli_(1 - self.free_dropout)
        if self.identity is None:
            return torch.ones_like(id_BNE[..., :1])
        return id_BNE.any(-1, keepdim=True).to(id_BNE.dtype)

    def _empty(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, self.dim, device=self.offset_T.device)


class ItemIdentity(nn.Module):
    """A row for every item that training met often enough (:mod:`ranker.vocabulary`), hidden for random items in
    training.

    The last row is of all others, and zero: it has no gradient. That of the table is sparse, the rows of one step.
    """

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        assert config.item_id is not None
        self.dim, self.dropout = config.dim, config.item_id.dropout
        self.hash_I: Tensor
        self.know(torch.empty(0, dtype=torch.int64))

    def know(self, hash_I: Tensor) -> None:
        """See :meth:`ItemEmbedding.know`."""
        self.register_buffer("hash_I", hash_I)
        rows = torch.zeros(len(hash_I) + 1, self.dim)
        self.table = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=len(hash_I), sparse=True)

    def forward(self, items_BN: Tensor) -> Tensor:
        """``(B, N, E)`` of int64 hashes."""
        id_BNE: Tensor = self.table(places_among(self.hash_I, items_BN))
        if not self.training or not self.dropout:
            return id_BNE
        return id_BNE * torch.empty_like(id_BNE[..., :1]).bernoulli_(1 - self.dropout)


def places_among(hash_I: Tensor, items_BN: Tensor) -> Tensor:
    """``(B, N)``, the places of int64 hashes among ascending ones; I for those that are not there."""
    if not len(hash_I):
        return torch.zeros_like(items_BN)
    place_BN = torch.searchsorted(hash_I, items_BN.contiguous()).clamp(max=len(hash_I) - 1)
    return torch.where(hash_I[place_BN] == items_BN, place_BN, len(hash_I))


class DecodedVectors(nn.Module):
    """A projection of the vectors that a tokenizer's frozen decoders make of an item's codes, one summand a code.

    A catalogue of thousands has few items a dimension: without dropout the projection learns them by heart, too.
    """

    def __init__(self, decoded_CV: Tensor, config: RankerConfig) -> None:
        super().__init__()
        self.decoded_CV: Tensor
        self.register_buffer("decoded_CV", decoded_CV)
        self.dropout = nn.Dropout(config.decoded_dropout)
        self.project = nn.Linear(decoded_CV.shape[1], config.dim)

    def forward(self, rows_BNT: Tensor) -> Tensor:
        """``(B, N, E)`` of int64 rows of ``decoded_CV``."""
        # As many rows as items are projected: the sum of an item's codes comes first.
        projected_BNE: Tensor = self.project(self.dropout(self.sums(rows_BNT)))
        return projected_BNE

    def sums(self, rows_BNT: Tensor) -> Tensor:
        """``(B, N, V)``, the vectors themselves."""
        sums = nn.functional.embedding_bag(rows_BNT.flatten(0, 1), self.decoded_CV, mode="sum")
        return sums.unflatten(0, rows_BNT.shape[:2])

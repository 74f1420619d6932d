"""Generated items whose factors are known: what both modalities tell, and what only one of them does.

N items, D embedding width of the modality.
"""

import torch
from torch import Tensor

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings
from tokenizer.base.tokenizer import Tokenizer

FACTORS = 8  # classes of each factor
TEXT_DIM, IMAGE_DIM = 40, 24
CONFIG = TokenizerConfig(codebook_size=FACTORS, dim=32, hidden=64, epochs=1, min_steps=400, batch_size=128)
BRIEF = CONFIG.model_copy(update={"dim": 16, "hidden": 32, "epochs": 4, "min_steps": 1, "batch_size": 64})


def known_factors(count: int, seed: int = 0) -> tuple[Embeddings, dict[str, Tensor]]:
    """Items whose text and image share one factor and have one each of their own; some lack a modality."""
    g = torch.Generator().manual_seed(seed)
    labels = {f: torch.randint(FACTORS, (count,), generator=g) for f in ("shared", "text", "image")}

    def mixed(own: str, width: int) -> Tensor:
        points = [torch.randn(FACTORS, 12, generator=g)[labels[f]] for f in ("shared", own)]
        hidden = torch.cat(points, dim=1) @ torch.randn(24, 48, generator=g)
        clean = torch.tanh(hidden / 5) @ torch.randn(48, width, generator=g) + 3
        return clean + 0.5 * torch.randn(count, width, generator=g)

    has_text_N = torch.rand(count, generator=g) > 0.05
    has_image_N = (torch.rand(count, generator=g) > 0.1) | ~has_text_N
    return Embeddings(mixed("text", TEXT_DIM), mixed("image", IMAGE_DIM), has_text_N, has_image_N), labels


def encode(model: Tokenizer, items: Embeddings) -> Tensor:
    """The codes of all items."""
    return model.encode(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N)


def unexplained(model: Tokenizer, items: Embeddings, trained_on: Embeddings) -> dict[str, float]:
    """By modality, the squared error of decoding as a share of the mean training item's."""
    items, found = items.normalised(), {}
    for m, rebuilt_ND in zip(("text", "image"), model.decode(encode(model, items)), strict=True):
        has_N, original_ND = items.present(m), items.vectors(m)
        mean_D = trained_on.normalised().vectors(m)[trained_on.present(m)].mean(dim=0)
        error, spread = ((original_ND - guess)[has_N].square().sum() for guess in (rebuilt_ND, mean_D))
        found[m] = float(error / spread)
    return found

"""How far from exact are what the DST's quantisers read, where it computes in float32.

B items, E embedding width of a modality, D width of the code space.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from tokenizer.base.embeddings import MODALITIES, Embeddings
from tokenizer.base.rounding import unit, unit_vector_error
from tokenizer.base.tokenizer import Bounds
from tokenizer.dst.alignment import weighted_sum

if TYPE_CHECKING:
    from tokenizer.dst.model import DST


class Errors:
    """Of normalised ``items`` and of ``x``, the same standardised; all are zero where there are no ``bounds``."""

    def __init__(self, model: "DST", items: Embeddings, x: dict[str, Tensor], bounds: Bounds | None) -> None:
        self.model, self.items, self.x, self.bounds = model, items, x, bounds
        self.of_x = {m: model.branch(m).standardise.error(items.vectors(m)) for m in MODALITIES}

    def of_merged(self, y: dict[str, Tensor], z: dict[str, Tensor]) -> Tensor:
        """Of what the shared quantiser reads, (B,), by the projections ``y``, (B, D) each, at unit length ``z``."""
        if self.bounds is None:
            return y["text"].new_zeros(len(self.items))
        share = {"text": self.model.config.text_share, "image": 1 - self.model.config.text_share}
        error_B = y["text"].new_full((len(self.items),), 4 * unit(y["text"].dtype))
        for m in MODALITIES:
            projected_B = self.bounds[self.model.branch(m).projection](self.x[m], self.of_x[m])
            own_B = share[m] * unit_vector_error(y[m], projected_B)
            error_B = error_B + own_B.masked_fill(~self.items.present(m), 0.0)
        sum_BD = weighted_sum(z["text"], z["image"], self.items.has_text_N, self.items.has_image_N, share["text"])
        return self.model.config.dim**0.5 * unit_vector_error(sum_BD, error_B)

    def of_left_over(self, m: str, h_BD: Tensor, u_BD: Tensor) -> Tensor:
        """Of what a modality's own quantiser reads ``u_BD``, (B,), made of the features ``h_BD``."""
        if self.bounds is None:
            return h_BD.new_zeros(len(h_BD))
        branch = self.model.branch(m)
        rounded_B = unit(h_BD.dtype) * (h_BD.norm(dim=1) + u_BD.norm(dim=1))
        return self.bounds[branch.features](self.x[m], self.of_x[m]) + 2 * rounded_B

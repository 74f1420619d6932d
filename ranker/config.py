"""What a ranker is and how it is trained."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RankerConfig(BaseModel):
    """Size, positions and training of a ranker; ``arch`` chooses HMAT or the flat baseline of the same size.

    Raises:
        pydantic.ValidationError: a value out of bounds, an unknown key, or heads that do not divide ``dim``
            into multiples of four (a head's halves are rotated apart, each in pairs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["hmat", "flat"] = Field(default="hmat", description="HMAT, or one flat stream under full attention")
    dim: int = Field(default=64, ge=4, le=4096, description="width of the residual stream")
    layers: int = Field(default=2, ge=1, le=64)
    heads: int = Field(default=2, ge=1, le=64)
    max_items: int = Field(default=300, ge=2, le=100_000, description="items a window may hold")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="on what each sub-layer adds to the residual stream")
    rope_base: float = Field(default=10_000.0, gt=1, description="longest wavelength of the rotary positions / 2π")

    epochs: int = Field(default=3, ge=1, le=1000, description="passes over the training windows")
    batch_items: int = Field(default=1600, ge=1, description="items of one step, padding included, over all workers")
    shuffle_windows: int = Field(default=8192, ge=1, description="windows a worker holds to shuffle and sort by length")
    learning_rate: float = Field(default=2e-3, gt=0, le=1, description="peak, after warm-up and before cosine decay")
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_steps: int = Field(default=50, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    workers: int = Field(default=1, ge=1, le=1024, description="data-parallel training processes")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dim % (4 * self.heads):
            raise ValueError(f"dim {self.dim} is not a multiple of 4 · heads = {4 * self.heads}")
        return self

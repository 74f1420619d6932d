"""What a ranker is and how it is trained."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Of larger ones flex attention's tiles outgrow the shared memory of a GPU's processors: see the sizes it falls back to
# in torch._inductor.template_heuristics.triton.CUDAConfigHeuristic.get_flex_attn_fwd_configs. Smaller ones than it
# takes are padded (ranker/hmat/flex.py).
LARGEST_HEAD = 256


class ItemIdConfig(BaseModel):
    """A learned vector of every item's own, for the items that training meets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_events: int = Field(default=1, ge=1, description="training events from which on an item has a vector")
    max_rows: int = Field(
        default=2**22, ge=1, le=2**31, description="vectors at most; the items with the most events have them"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="chance that an item's ID is hidden in training")


class CollaborativeConfig(BaseModel):
    """A user's taste as a ridge regression on factors of items, which others' feedback and the items' content give.

    Strengths are of ridge priors, in units of the noise of one event.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: int = Field(default=12, ge=1, le=256, description="numbers of an item's and a user's factors")
    graded: float = Field(
        default=0.7, ge=0, le=1, description="share of the graded feedback beside the label's, where there is any"
    )
    level_strength: float = Field(default=1.5, gt=0, description="prior of a user's level")
    user_strength: float = Field(default=1.2, gt=0, description="prior of a user's taste for a factor")
    bias_strength: float = Field(default=15.0, gt=0, description="prior of an item's bias about what its content says")
    item_strength: float = Field(default=13.0, gt=0, description="the same of its factors")
    content_strength: float = Field(default=1.0, gt=0, description="of the regression from content to bias and factors")
    content_components: int = Field(default=16, ge=0, le=256, description="of the content, beside the factors")
    component_strength: float = Field(default=8.0, gt=0, description="prior of a user's taste for a component")
    met_components: int = Field(
        default=16, ge=0, le=256, description="of which items users meet, from which the usual taste is told"
    )
    met_strength: float = Field(default=50.0, gt=0, description="of the regression from items met to the usual taste")
    half_life: float | None = Field(
        default=250.0, gt=0, description="items after which feedback counts half; none: all alike"
    )
    unknown: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the items that training scores as if it had never met them, as it will new ones",
    )
    passes: int = Field(default=8, ge=1, le=100, description="over users and items in turn")


class RankerConfig(BaseModel):
    """Size, positions and training of a ranker; ``arch`` chooses HMAT or a baseline.

    Raises:
        pydantic.ValidationError: a value out of bounds, an unknown key, or heads that do not divide ``dim``
            into multiples of four (a head's halves are rotated apart, each in pairs), heads of the HMAT that no GPU
            takes, a ranker that would know nothing of an item, or one that would hide all it knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["hmat", "flat", "sasrec", "hstu", "din"] = Field(
        default="hmat", description="HMAT, or what it is compared with (ranker/baselines)"
    )
    dim: int = Field(default=64, ge=4, le=4096, description="width of the residual stream")
    layers: int = Field(default=2, ge=1, le=64, description="blocks of attention and feed-forward")
    heads: int = Field(default=2, ge=1, le=64, description="of attention; dim is a multiple of 4 · heads")
    max_items: int = Field(default=300, ge=2, le=100_000, description="items a window may hold")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="on what each sub-layer adds to the residual stream")
    codes: bool = Field(default=True, description="a learned vector a code; without, an item has no tokens")
    item_id: ItemIdConfig | None = Field(default=None, description="a learned vector an item beside its codes'")
    decoded: tuple[Literal["text", "image"], ...] = Field(
        default=(), description="vectors that the tokenizer's decoders make of an item's codes, beside the codes"
    )
    decoded_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="chance that a number of a decoded vector is hidden in training"
    )
    free_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="chance that code vectors and ID of an item are hidden in training"
    )
    feedback: bool = Field(default=False, description="read the graded feedback of the past beside its labels")
    collaborative: CollaborativeConfig | None = Field(
        default=None, description="taste by factors of items beside attention: an offset of the logit and an input"
    )
    rope_base: float = Field(default=10_000.0, gt=1, description="longest wavelength of the rotary positions / 2π")

    request_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the training windows whose items see the history as it was when a request of 20 began, "
        "as candidates do",
    )
    epochs: int = Field(default=3, ge=1, le=1000, description="passes over the training windows")
    batch_items: int = Field(default=1600, ge=1, description="items of one step, padding included, over all workers")
    shuffle_windows: int = Field(default=8192, ge=1, description="windows a worker holds to shuffle and sort by length")
    learning_rate: float = Field(default=2e-3, gt=0, le=1, description="peak, after warm-up and before cosine decay")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="AdamW's")
    warmup_steps: int = Field(default=50, ge=0, description="steps in which the learning rate rises")
    max_gradient_norm: float = Field(default=1.0, gt=0, description="a longer gradient is scaled down to it")
    recompute: int | None = Field(
        default=None,
        ge=1,
        description="keep nothing of a layer in training, but compute it again backwards, so many items at once: more "
        "time for a fraction of the memory (docs/ranker.md); none: keep all",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the network in training; auto: bfloat16 on a GPU that has it, else float32"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="watch the last tenth of the training period instead of training on it, and stop when so many "
        "passes did not improve its loss; none: train on all of it",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="of every random choice")
    workers: int = Field(default=1, ge=1, le=1024, description="data-parallel training processes")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dim % (4 * self.heads):
            raise ValueError(f"dim {self.dim} is not a multiple of 4 · heads = {4 * self.heads}")
        return self

    @model_validator(mode="after")
    def _heads_fit_a_gpu(self) -> Self:
        if self.arch == "hmat" and self.dim // self.heads > LARGEST_HEAD:
            ways = (n for n in range(self.heads, 65) if self.dim % (4 * n) == 0 and self.dim // n <= LARGEST_HEAD)
            least = next(ways, None)
            do = f"set ranker.heads to {least} or more" if least else f"lower ranker.dim {self.dim}"
            raise ValueError(
                f"ranker.heads {self.heads} gives heads of {self.dim // self.heads} numbers, where attention on CUDA "
                f"takes {LARGEST_HEAD} at most: {do}"
            )
        return self

    @model_validator(mode="after")
    def _knows_items(self) -> Self:
        if not (self.codes or self.item_id or self.decoded):
            raise ValueError("codes, item_id and decoded are all off: nothing would be known of an item")
        if self.free_dropout and not self.decoded:
            raise ValueError("free_dropout hides all but the decoded vectors: set decoded, too")
        if self.collaborative and self.arch != "hmat":
            raise ValueError("collaborative is a memory of the HMAT: unset it, or set arch to hmat")
        if self.decoded_dropout and not self.decoded:
            raise ValueError("decoded_dropout hides parts of the decoded vectors: set decoded, too")
        return self

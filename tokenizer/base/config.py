"""Configuration of the Disentangled Semantic Tokenizer: every setting with its bounds."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.semantic_id import MAX_CODEBOOK, Layout

Method = Literal["dst", "rq_kmeans", "rq_vae"]
SHARE = 1 / 20  # of the contents: held out for the metrics; as many again to watch a training


class TokenizerConfig(BaseModel):
    """Method, shape, training and loss weights of the tokenizer.

    ``docs/tokenizer.md`` says how to choose: codebooks by the size of the catalogue, shared levels, ``text_share`` and
    ``self_weight`` by how far text and image agree, which ``metrics.json`` of a first tokenizer tells. The baselines
    ``rq_kmeans`` and ``rq_vae`` put all levels into one part, so they make IDs of as many bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field("dst", description="the DST, or a baseline: residual k-means, RQ-VAE")
    shared_levels: int = Field(3, ge=1, le=8, description="codes of what text and picture both tell")
    text_levels: int = Field(2, ge=0, le=8, description="codes of what the text alone tells")
    image_levels: int = Field(2, ge=0, le=8, description="codes of what the picture alone tells")
    codebook_size: int = Field(256, ge=2, le=MAX_CODEBOOK, description="codes of a level")

    dim: int = Field(64, ge=2, le=4096, description="width of the space the codebooks live in")
    hidden: int = Field(256, ge=2, le=16384, description="width of the networks' hidden layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the networks' hidden layer, in training")
    input_noise: float = Field(
        0.3, ge=0, le=100, description="Gaussian noise on training inputs, as a share of their spread"
    )
    linear_start: bool = Field(
        False,
        description="own features and decoders begin as principal components: for a small catalogue",
    )

    epochs: int = Field(30, ge=1, le=100_000, description="passes over the training items")
    min_steps: int = Field(
        400, ge=1, le=10_000_000, description="a small catalogue trains for more epochs, until it has made these steps"
    )
    batch_size: int = Field(256, ge=8, le=1_000_000, description="items of a step, over all workers")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="peak, after a warm-up and before cosine decay")
    weight_decay: float = Field(1e-2, ge=0, le=10, description="AdamW's")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the networks in training; auto: bfloat16 on a GPU that has it, else float32"
    )
    patience: int | None = Field(
        None, ge=1, le=100_000, description="stop when so many epochs did not improve held-out items; none: never"
    )
    workers: int = Field(1, ge=1, le=1024, description="processes that train together, a GPU each where there are any")
    warmup: float = Field(
        0.12, gt=0, lt=1, description="share of the training that aligns before the codebooks are initialised"
    )
    max_train_items: int = Field(
        500_000, ge=2, description="a larger catalogue is sampled down to these items for training"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of every random choice")

    text_share: float = Field(
        0.5, gt=0, lt=1, description="weight of the text in the consensus of an item that has both modalities"
    )
    temperature: float = Field(0.1, gt=0, le=10, description="of the contrastive alignment")
    align_weight: float = Field(0.5, ge=0, le=1000, description="contrastive alignment")
    agreement_weight: float = Field(1.0, ge=0, le=1000, description="both modalities of an item at one point")
    geometry_weight: float = Field(0.1, ge=0, le=1000, description="keeping each modality's own angles")
    rebuild_weight: float = Field(4.0, ge=0, le=1000, description="decoding a modality from shared and own codes")
    cross_weight: float = Field(2.0, ge=0, le=1000, description="predicting a withheld modality from shared codes")
    self_weight: float = Field(0.0, ge=0, le=1000, description="decoding a modality from shared codes alone")
    commitment_weight: float = Field(0.25, ge=0, le=1000, description="staying close to the chosen codes")
    information_weight: float = Field(0.1, ge=0, le=1000, description="mutual information between the parts")
    decorrelation_weight: float = Field(3.0, ge=0, le=1000, description="linear dependence between the parts")

    beam: int = Field(1, ge=1, le=1024, description="paths that the search for a modality's own codes keeps")
    ema_decay: float = Field(0.95, ge=0, lt=1, description="memory of the codebooks' moving averages")
    revive_below: float = Field(
        0.05, ge=0, lt=1, description="a code used less than this share of the mean is drawn anew"
    )

    @property
    def sample_items(self) -> int:
        """How many items to read for a training: those it trains on, watches and is measured on."""
        return math.ceil(self.max_train_items / (1 - 2 * SHARE))

    def layout(self) -> Layout:
        """The slots of the semantic IDs that this configuration makes."""
        if self.method == "dst":
            return Layout(self.shared_levels, self.text_levels, self.image_levels, self.codebook_size)
        return Layout(self.shared_levels + self.text_levels + self.image_levels, 0, 0, self.codebook_size)

"""Vision models and the text towers of joint models, loaded from a local folder by transformers."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.model_encoder import ModelEncoder, pooler_found
from pipeline.on_ray.encoders.picture_batches import PictureBatches
from pipeline.on_ray.encoders.token_batches import STEP, Batch, Places, token_batches


def has_text_tower(folder: Path, settings: Encoder) -> bool:
    """Whether a plain folder holds a joint model of texts and pictures (CLIP, SigLIP), which projects both."""
    from transformers import MODEL_MAPPING, AutoConfig

    if (folder / "modules.json").exists():
        return False
    config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code, local_files_only=True)
    return hasattr(MODEL_MAPPING.get(type(config), None), "get_text_features")


class TextTower(ModelEncoder):
    """The text side of a joint model: the projection of its texts."""

    def __init__(self, folder: Path, settings: TextEncoder, device: str | None) -> None:
        from transformers import AutoConfig, AutoTokenizer

        super().__init__(device, settings.batch_size)
        if settings.truncate_dim or settings.pooling != "auto":
            raise ConfigError("encoders.text: a joint model of texts and pictures has neither pooling nor truncate_dim")
        own = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
        config = AutoConfig.from_pretrained(folder, **own)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, **own)
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        self._max_length = min(settings.max_length, limit or settings.max_length)
        siglip = config.model_type.startswith("siglip")  # trained on texts padded to a fixed length
        self._step = self._max_length if siglip else math.gcd(STEP, limit or 0)
        self._prompt = settings.prompt or ""
        if device is not None:
            self._model, _ = _load_model(folder, settings, device)

    def prepare(self, inputs: Sequence[str]) -> Iterator[tuple[Places, Batch]]:
        """Of batches of one width each: tokens and their mask."""
        tokens = self._tokenizer([self._prompt + text for text in inputs], truncation=True, max_length=self._max_length)
        return token_batches(tokens, self._tokenizer, self._batch_size, self._step)

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        """The projections."""
        return _projected(self._model.get_text_features(**tensors))


class HuggingFaceImage(ModelEncoder):
    """A vision model: its projection if it has one (CLIP, SigLIP), else its pooled, first or mean state.

    Raises:
        ConfigError: the first state is wanted of a model that has none.
    """

    def __init__(self, folder: Path, settings: Encoder, device: str | None) -> None:
        from transformers import AutoImageProcessor

        super().__init__(device, settings.batch_size)
        # One backend everywhere: torchvision's resizing differs slightly from Pillow's.
        self._pictures = PictureBatches(
            AutoImageProcessor.from_pretrained(
                folder, backend="pil", trust_remote_code=settings.trust_remote_code, local_files_only=True
            )
        )
        self._pooling = settings.pooling
        if device is not None:
            self._model, self._has_pooler = _load_model(folder, settings, device)
            if settings.pooling == "cls":
                self([Image.new("RGB", (64, 64))])  # whether there is a first state, its states alone tell

    def prepare(self, inputs: Sequence[Image.Image]) -> Iterator[tuple[Places, Batch]]:
        """As :class:`PictureBatches` makes them."""
        for first in range(0, len(inputs), self._batch_size):
            batch = inputs[first : first + self._batch_size]
            yield np.arange(first, first + len(batch)), self._pictures(batch)

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        """The projections, or states as pooled."""
        # Beside pixels, models of pictures of any shape (SigLIP 2) take which of them are there.
        pixels = self._pictures.on_device(tensors, self._model.dtype)
        if hasattr(self._model, "get_image_features"):
            return _projected(self._model.get_image_features(**pixels))
        output = self._model(**pixels)
        if self._pooling == "auto" and self._has_pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        states = output.last_hidden_state
        if states.ndim == 4:  # (N, C, H, W), a convolutional model's map of channels
            if self._pooling == "cls":
                name = type(self._model).__name__
                raise ConfigError(f"encoders.image.pooling: {name} has no first state, but a map: set auto or mean")
            return states.mean((2, 3))
        return states.mean(1) if self._pooling == "mean" else states[:, 0]


def _load_model(folder: Path, settings: Encoder, device: str) -> tuple[Any, bool]:
    """The model, and whether its pooler is in the weights."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(
        folder,
        use_safetensors=True,
        dtype=getattr(torch, settings.dtype),
        trust_remote_code=settings.trust_remote_code,
        local_files_only=True,
        output_loading_info=True,
    )
    has_pooler = pooler_found(model, found["missing_keys"])
    return model.eval().to(device), has_pooler


def _projected(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output

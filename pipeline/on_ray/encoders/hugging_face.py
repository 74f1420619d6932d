"""Hugging Face text and vision models as encoders, loaded from a local folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config.models import Encoder


class HuggingFaceText:
    """A text model: its projection if it has one (CLIP, SigLIP), else the mean or first token's last state."""

    def __init__(self, folder: Path, settings: Encoder, device: str) -> None:
        from transformers import AutoTokenizer

        self._model = _load_model(folder, settings, device)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._device = device
        self._pooling = _pooling(folder, settings)
        siglip = self._model.config.model_type.startswith("siglip")  # trained on texts padded to a fixed length
        self._padding = "max_length" if siglip else "longest"
        limit = getattr(getattr(self._model.config, "text_config", self._model.config), "max_position_embeddings", None)
        self._max_length = min(settings.max_length, limit or settings.max_length)

    @torch.inference_mode()
    def __call__(self, inputs: list[str]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        tokens = self._tokenizer(
            inputs, padding=self._padding, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._device)
        if hasattr(self._model, "get_text_features"):
            return _unit(_projected(self._model.get_text_features(**tokens)))
        states_NLD = self._model(**tokens).last_hidden_state
        if self._pooling == "cls":
            return _unit(states_NLD[:, 0])
        mask_NL1 = tokens["attention_mask"].unsqueeze(-1).to(states_NLD.dtype)
        return _unit((states_NLD * mask_NL1).sum(1) / mask_NL1.sum(1).clamp(min=1))


class HuggingFaceImage:
    """A vision model: its projection if it has one (CLIP, SigLIP), else its pooled, first or mean state."""

    def __init__(self, folder: Path, settings: Encoder, device: str) -> None:
        from transformers import AutoImageProcessor

        self._model = _load_model(folder, settings, device)
        # One backend everywhere: torchvision's resizing differs slightly from Pillow's.
        self._processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self._device = device
        self._pooling = settings.pooling

    @torch.inference_mode()
    def __call__(self, inputs: list[Image.Image]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        pixels = self._processor(images=inputs, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self._device, self._model.dtype)
        if hasattr(self._model, "get_image_features"):
            return _unit(_projected(self._model.get_image_features(pixel_values=pixels)))
        output = self._model(pixel_values=pixels)
        if self._pooling == "auto" and getattr(output, "pooler_output", None) is not None:
            return _unit(output.pooler_output.flatten(1))
        states_NLD = output.last_hidden_state.flatten(2)
        return _unit(states_NLD.mean(1) if self._pooling == "mean" else states_NLD[:, 0])


def _load_model(folder: Path, settings: Encoder, device: str) -> Any:
    from transformers import AutoModel

    dtype = getattr(torch, settings.dtype)
    return AutoModel.from_pretrained(folder, use_safetensors=True, dtype=dtype).eval().to(device)


def _pooling(folder: Path, settings: Encoder) -> str:
    """``auto`` follows what a sentence-transformers folder says of itself, else takes the mean."""
    if settings.pooling != "auto":
        return settings.pooling
    stated = folder / "1_Pooling" / "config.json"
    if stated.is_file() and json.loads(stated.read_text()).get("pooling_mode_cls_token"):
        return "cls"
    return "mean"


def _projected(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output


def _unit(x_ND: Tensor) -> NDArray[np.float32]:
    return torch.nn.functional.normalize(x_ND.float(), dim=1).cpu().numpy()

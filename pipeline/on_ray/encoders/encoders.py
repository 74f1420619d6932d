"""The encoders of both modalities: the built-in descriptors, or any Hugging Face text or vision model.

An encoder's fingerprint covers its weights, its preprocessing and its pooling, and is computed without loading
the model. Batch size is no part of it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config.models import Encoder, Encoders
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor

BUILTIN = "builtin"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*/config.json")

Modality = Literal["text", "image"]


class Encode(Protocol):
    """What an encoder is: inputs to float32 rows of length ``dim``."""

    def __call__(self, inputs: list[Any], /) -> NDArray[np.float32]:
        """``(N, dim)`` vectors of N texts or N RGB pictures."""


def load_encoder(modality: Modality, settings: Encoder, device: str) -> Encode:
    """The encoder that the configuration names, ready on ``device``."""
    if settings.model == BUILTIN:
        return TextDescriptor() if modality == "text" else ImageDescriptor()
    folder = model_folder(modality, settings)
    return (
        HuggingFaceText(folder, settings, device) if modality == "text" else HuggingFaceImage(folder, settings, device)
    )


def encoder_fingerprint(encoders: Encoders) -> str:
    """The name of this pair of encoders: what their vectors are stored under, 16 hexadecimal digits."""
    parts = [_fingerprint("text", encoders.text), _fingerprint("image", encoders.image)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def model_folder(modality: Modality, settings: Encoder) -> Path:
    """The local folder of a Hugging Face model, fetched from the hub if it is named by repository.

    Raises:
        ConfigError: there is no such folder, and the hub does not have it or cannot be reached.
    """
    if Path(settings.model).is_dir():
        return Path(settings.model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(settings.model, revision=settings.revision, allow_patterns=list(MODEL_FILES)))
    except Exception as error:
        why = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"encoders.{modality}.model: {settings.model} is no local folder and cannot be had from the "
            f"Hugging Face hub ({type(error).__name__}: {why})"
        ) from error


def _fingerprint(modality: Modality, settings: Encoder) -> str:
    if settings.model == BUILTIN:
        return TextDescriptor().fingerprint if modality == "text" else ImageDescriptor().fingerprint
    folder = model_folder(modality, settings)
    digest = hashlib.sha256()
    for file in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    length = settings.max_length if modality == "text" else None
    return f"{digest.hexdigest()}|{settings.pooling}|{length}|{settings.dtype}"


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

"""Vision models and the text towers of joint models, loaded from a local folder by transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import ConfigError


def has_text_tower(folder: Path, settings: Encoder) -> bool:
    """Whether a plain folder holds a joint model of texts and pictures (CLIP, SigLIP), which projects both."""
    from transformers import MODEL_MAPPING, AutoConfig

    if (folder / "modules.json").exists():
        return False
    config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code, local_files_only=True)
    return hasattr(MODEL_MAPPING.get(type(config), None), "get_text_features")


class TextTower:
    """The text side of a joint model: the projection of its texts."""

    def __init__(self, folder: Path, settings: TextEncoder, device: str) -> None:
        from transformers import AutoTokenizer

        if settings.truncate_dim or settings.pooling != "auto":
            raise ConfigError("encoders.text: a joint model of texts and pictures has neither pooling nor truncate_dim")
        self._model, _ = _load_model(folder, settings, device)
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=settings.trust_remote_code, local_files_only=True
        )
        self._device = device
        siglip = self._model.config.model_type.startswith("siglip")  # trained on texts padded to a fixed length
        self._padding = "max_length" if siglip else "longest"
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._max_length = min(settings.max_length, limit or settings.max_length)
        self._prompt = settings.prompt or ""

    @torch.inference_mode()
    def __call__(self, inputs: list[str]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        tokens = self._tokenizer(
            [self._prompt + text for text in inputs],
            padding=self._padding,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        ).to(self._device)
        return unit_rows(_projected(self._model.get_text_features(**tokens)))


class HuggingFaceImage:
    """A vision model: its projection if it has one (CLIP, SigLIP), else its pooled, first or mean state."""

    def __init__(self, folder: Path, settings: Encoder, device: str) -> None:
        from transformers import AutoImageProcessor

        self._model, self._has_pooler = _load_model(folder, settings, device)
        # One backend everywhere: torchvision's resizing differs slightly from Pillow's.
        self._processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=settings.trust_remote_code, local_files_only=True
        )
        self._device = device
        self._pooling = settings.pooling

    @torch.inference_mode()
    def __call__(self, inputs: list[Image.Image]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        # Beside pixels, models of pictures of any shape (SigLIP 2) take which of them are there.
        pixels = self._processor(images=inputs, return_tensors="pt").to(self._device, dtype=self._model.dtype)
        if hasattr(self._model, "get_image_features"):
            return unit_rows(_projected(self._model.get_image_features(**pixels)))
        output = self._model(**pixels)
        if self._pooling == "auto" and self._has_pooler and getattr(output, "pooler_output", None) is not None:
            return unit_rows(output.pooler_output.flatten(1))
        states_NLD = output.last_hidden_state.flatten(2)
        return unit_rows(states_NLD.mean(1) if self._pooling == "mean" else states_NLD[:, 0])


def unit_rows(x_ND: Tensor) -> NDArray[np.float32]:
    """Rows scaled to length one, in float32 on the host; one of zeros stays."""
    return torch.nn.functional.normalize(x_ND.float(), dim=1).cpu().numpy()


def _load_model(folder: Path, settings: Encoder, device: str) -> tuple[Any, bool]:
    """The model, and whether its pooler is in the weights: transformers would draw what is missing at random."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(
        folder,
        use_safetensors=True,
        dtype=getattr(torch, settings.dtype),
        trust_remote_code=settings.trust_remote_code,
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in found["missing_keys"] if "pooler." not in name)
    if missing:
        raise ValueError(f"the weights lack {missing[0]} and {len(missing) - 1} more that {type(model).__name__} has")
    return model.eval().to(device), not found["missing_keys"]


def _projected(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output

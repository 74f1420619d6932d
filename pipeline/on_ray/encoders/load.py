"""The encoders of both modalities: the built-in descriptors, or any Hugging Face text or vision model."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor
from pipeline.on_ray.encoders.model_checks import usable_folder
from pipeline.on_ray.encoders.model_files import BUILTIN


class Encode(Protocol):
    """What an encoder is: inputs to float32 rows of length ``dim``.

    One with a model is a :class:`pipeline.on_ray.encoders.model_encoder.ModelEncoder` besides, whose two halves may
    run in two processes.
    """

    def __call__(self, inputs: list[Any], /) -> NDArray[np.float32]:
        """``(N, dim)`` vectors of N texts or N RGB pictures."""


def load_encoder(modality: str, settings: Encoder, device: str | None) -> Encode:
    """The encoder that the configuration names, ready on ``device``; with ``None`` for its work on the host alone.

    Raises:
        ConfigError: the model cannot be had, must not be loaded, or does not load.
    """
    if settings.model == BUILTIN:
        return TextDescriptor() if modality == "text" else ImageDescriptor()
    folder = usable_folder(modality, settings)
    try:
        return _load_model(folder, settings, device)
    except ConfigError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"encoders.{modality}.model: {settings.model} does not load ({type(error).__name__}: {why})"
        ) from error


def _load_model(folder: Path, settings: Encoder, device: str | None) -> Encode:
    from pipeline.on_ray.encoders import hugging_face  # torch takes seconds to import

    if not isinstance(settings, TextEncoder):
        return hugging_face.HuggingFaceImage(folder, settings, device)
    if hugging_face.has_text_tower(folder, settings):
        return hugging_face.TextTower(folder, settings, device)
    from pipeline.on_ray.encoders.sentence_model import SentenceModel

    return SentenceModel(folder, settings, device)

"""The encoders of both modalities: the built-in descriptors, or any Hugging Face text or vision model."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config.models import Encoder
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor
from pipeline.on_ray.encoders.fingerprint import BUILTIN, model_folder


class Encode(Protocol):
    """What an encoder is: inputs to float32 rows of length ``dim``."""

    def __call__(self, inputs: list[Any], /) -> NDArray[np.float32]:
        """``(N, dim)`` vectors of N texts or N RGB pictures."""


def load_encoder(modality: str, settings: Encoder, device: str) -> Encode:
    """The encoder that the configuration names, ready on ``device``."""
    if settings.model == BUILTIN:
        return TextDescriptor() if modality == "text" else ImageDescriptor()
    from pipeline.on_ray.encoders.hugging_face import HuggingFaceImage, HuggingFaceText  # torch takes seconds to import

    model = HuggingFaceText if modality == "text" else HuggingFaceImage
    return model(model_folder(modality, settings), settings, device)

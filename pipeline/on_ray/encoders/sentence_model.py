"""Text models as the library sentence-transformers runs them, loaded from a local folder."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from pipeline.config.models import TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.hugging_face import unit_rows
from pipeline.on_ray.encoders.model_files import longest_text


class SentenceModel:
    """A text model with the modules, pooling and prompt that its folder states.

    A plain folder of transformers, without ``modules.json``, is pooled by the mean, a causal language model's by its
    last token, as the library has it. Of an encoder with a decoder the encoder alone is loaded.
    """

    def __init__(self, folder: Path, settings: TextEncoder, device: str) -> None:
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            model_kwargs={"use_safetensors": True, "dtype": getattr(torch, settings.dtype)},
        ).eval()
        if not self._model.supports("text"):
            raise ValueError("it is not a model of texts")
        limits = (settings.max_length, longest_text(folder), self._model.max_seq_length)
        self._model.max_seq_length = int(min(limit for limit in limits if limit))
        self._prompt = settings.prompt
        if settings.pooling != "auto":
            self._pool_by(settings.pooling)
        if settings.truncate_dim:
            self._truncate(settings.truncate_dim)

    @torch.inference_mode()
    def __call__(self, inputs: list[str]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        x_ND = self._model.encode(
            inputs, prompt=self._prompt, batch_size=len(inputs), convert_to_tensor=True, show_progress_bar=False
        )
        return unit_rows(x_ND)

    def _pool_by(self, mode: str) -> None:
        poolings = [module for module in self._model if isinstance(module, Pooling)]
        if not poolings:
            raise ConfigError("encoders.text.pooling: the model has no pooling of its own to replace, leave it at auto")
        for pooling in poolings:
            pooling.pooling_mode = mode

    def _truncate(self, dim: int) -> None:
        self._model.truncate_dim = None  # the model's own
        whole = self._model.get_embedding_dimension()
        if whole is not None and dim > whole:
            raise ConfigError(f"encoders.text.truncate_dim is {dim}, the model's vectors have {whole} numbers")
        self._model.truncate_dim = dim

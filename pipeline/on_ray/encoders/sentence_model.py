"""Text models as the library sentence-transformers runs them, loaded from a local folder."""

import math
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from pipeline.config.encoders import TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.hugging_face import unit_rows
from pipeline.on_ray.encoders.model_files import longest_text

STEP = 16  # tokens


class SentenceModel:
    """A text model with the modules, pooling and prompt that its folder states.

    A plain folder of transformers, without ``modules.json``, is pooled by the mean, a causal language model's by its
    last token, as the library has it. Of an encoder with a decoder the encoder alone is loaded.

    A text is padded to the next multiple of :data:`STEP` tokens and goes through the model with others of that width:
    the text itself, and not the longest of its neighbours, says over how much padding is summed.
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
        limit = longest_text(folder)
        limits = (settings.max_length, limit, self._model.max_seq_length)
        self._model.max_seq_length = int(min(limit for limit in limits if limit))
        self._step = math.gcd(STEP, limit or 0)  # padding, too, has to keep within the model's positions
        own = self._model.prompts.get(self._model.default_prompt_name, "")
        self._prompt = own if settings.prompt is None else settings.prompt
        if settings.pooling != "auto":
            self._pool_by(settings.pooling)
        if settings.truncate_dim:
            self._truncate(settings.truncate_dim)

    @torch.inference_mode()
    def __call__(self, inputs: list[str]) -> NDArray[np.float32]:
        """``(N, dim)`` float32 vectors of length one."""
        widths = self._widths(inputs)
        order = sorted(range(len(inputs)), key=widths.__getitem__)
        groups = [list(rows) for _, rows in groupby(order, key=widths.__getitem__)]
        x_ND = np.concatenate([self._encode([inputs[row] for row in rows]) for rows in groups])
        return x_ND[np.argsort(order)]

    def _widths(self, inputs: list[str]) -> list[int]:
        """The steps that each text's tokens fill, with the prompt's."""
        tokens = self._model.tokenizer([self._prompt + text for text in inputs], truncation=True)["input_ids"]
        return [-(-len(row) // self._step) for row in tokens]

    def _encode(self, inputs: list[str]) -> NDArray[np.float32]:
        x_ND = self._model.encode(
            inputs,
            prompt=self._prompt,
            batch_size=len(inputs),
            convert_to_tensor=True,
            show_progress_bar=False,
            processing_kwargs={"text": {"pad_to_multiple_of": self._step}},
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

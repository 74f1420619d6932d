"""Text models as the library sentence-transformers runs them, loaded from a local folder."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig

from pipeline.config.encoders import TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.model_encoder import ModelEncoder, pooler_found
from pipeline.on_ray.encoders.model_files import longest_text, read_json, transformer_folder
from pipeline.on_ray.encoders.token_batches import STEP, Batch, Places, token_batches

UNPADDED: Any = {"text": {"padding": False}, "common": {"return_tensors": None}}


class SentenceModel(ModelEncoder):
    """A text model with the modules, pooling and prompt that its folder states.

    A plain folder of transformers, without ``modules.json``, is pooled by the mean, a causal language model's by its
    last token, as the library has it. Of an encoder with a decoder the encoder alone is loaded.

    A text is padded to the next multiple of :data:`STEP` tokens and goes through the model with others of that width:
    the text itself, and not the longest of its neighbours, says over how much padding is summed.
    """

    def __init__(self, folder: Path, settings: TextEncoder, device: str | None) -> None:
        super().__init__(device, settings.batch_size)
        if device is None:
            first: Any = _WithoutWeights.load(
                str(transformer_folder(folder)), trust_remote_code=settings.trust_remote_code, local_files_only=True
            )
            stated = read_json(folder / "config_sentence_transformers.json") or {}
            prompts, named = stated.get("prompts") or {}, stated.get("default_prompt_name")
        else:
            self._model = _loaded(folder, settings, device)
            first, prompts, named = self._model[0], self._model.prompts, self._model.default_prompt_name
        self._first = first
        limit = longest_text(folder)
        limits = (settings.max_length, limit, first.max_seq_length)
        first.max_seq_length = int(min(limit for limit in limits if limit))
        self._step = math.gcd(STEP, limit or 0)  # padding, too, has to keep within the model's positions
        self._prompt = prompts.get(named, "") if settings.prompt is None else settings.prompt

    def prepare(self, inputs: Sequence[str]) -> Iterator[tuple[Places, Batch]]:
        """Of batches of one width each: tokens, their mask, and what else the tokenizer makes."""
        lists = {name: rows for name, rows in self._tokens(inputs).items() if isinstance(rows, list)}
        return token_batches(lists, self._first.tokenizer, self._batch_size, self._step)

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        """As all modules together make them."""
        x_ND = self._model({**tensors, **self._alike})["sentence_embedding"]
        return x_ND[:, : self._model.truncate_dim]

    def _tokens(self, inputs: Sequence[str]) -> dict[str, Any]:
        return dict(self._first.preprocess(list(inputs), prompt=self._prompt, processing_kwargs=UNPADDED))

    @cached_property
    def _alike(self) -> dict[str, Any]:
        """What the modules are told besides, the same of every text: the prompt's length."""
        return {name: value for name, value in self._tokens(["a"]).items() if not isinstance(value, list)}


class _WithoutWeights(Transformer):
    """The first module for its tokenizer alone."""

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        config = next(value for value in args if isinstance(value, PreTrainedConfig))
        with torch.device("meta"):
            return AutoModel.from_config(config, trust_remote_code=kwargs.get("trust_remote_code", False))


def _loaded(folder: Path, settings: TextEncoder, device: str) -> SentenceTransformer:
    with _from_files_alone():
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            model_kwargs={"use_safetensors": True, "dtype": getattr(torch, settings.dtype)},
        ).eval()
    if not model.supports("text"):
        raise ValueError("it is not a model of texts")
    if settings.pooling != "auto":
        poolings = [module for module in model if isinstance(module, Pooling)]
        if not poolings:
            raise ConfigError("encoders.text.pooling: the model has no pooling of its own to replace, leave it at auto")
        for pooling in poolings:
            pooling.pooling_mode = settings.pooling
    if settings.truncate_dim:
        _truncate(model, settings.truncate_dim)
    return model


@contextmanager
def _from_files_alone() -> Iterator[None]:
    """Refuse models whose files lack weights; the library does not hand on which transformers did not find."""
    load = Transformer._load_model

    def load_whole(self: Transformer, *args: Any, **kwargs: Any) -> Any:
        model, found = load(self, *args, **kwargs, output_loading_info=True)
        pooler_found(model, found["missing_keys"])
        return model

    Transformer._load_model = load_whole
    try:
        yield
    finally:
        Transformer._load_model = load


def _truncate(model: SentenceTransformer, dim: int) -> None:
    model.truncate_dim = None  # the model's own
    whole = model.get_embedding_dimension()
    if whole is not None and dim > whole:
        raise ConfigError(f"encoders.text.truncate_dim is {dim}, the model's vectors have {whole} numbers")
    model.truncate_dim = dim

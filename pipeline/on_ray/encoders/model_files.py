"""A model's folder: where it lies, and which of its files decide a vector; nothing of it is loaded, torch included."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import ConfigError, first_line

BUILTIN = "builtin"
DECIDING = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.bpe", "*.vocab", "*.tiktoken", "*.jinja")
OTHER_BACKENDS = ("onnx/*", "openvino/*")
COMMIT = re.compile(r"[0-9a-f]{40}")
# The first positions of these models' tables, up to that of the padding token, belong to no token.
PADDED_POSITIONS = {
    *("camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}


def model_folder(modality: str, settings: Encoder) -> Path:
    """The local folder of a Hugging Face model, fetched from the hub if it is named by repository.

    Raises:
        ConfigError: there is no such folder, and the hub does not have it or cannot be reached; or a model whose own
            code is trusted is not pinned to a commit.
    """
    if Path(settings.model).is_dir():
        return Path(settings.model)
    code = ["*.py"] if settings.trust_remote_code else []
    if code and not COMMIT.fullmatch(settings.revision or ""):
        raise ConfigError(
            f"encoders.{modality}.revision: with trust_remote_code it must be a commit of {settings.model}, 40 "
            f"hexadecimal digits, so that its code cannot change (given: {settings.revision!r})"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                settings.model,
                revision=settings.revision,
                allow_patterns=[*DECIDING, *code],
                ignore_patterns=list(OTHER_BACKENDS),
            )
        )
    except Exception as error:
        why = first_line(error)
        raise ConfigError(
            f"encoders.{modality}.model: {settings.model} is no local folder and cannot be had from the "
            f"Hugging Face hub ({type(error).__name__}: {why})"
        ) from error


def modules(folder: Path) -> list[dict[str, str]]:
    """``type`` and ``path`` of the modules of a sentence-transformers model, in order; none of a plain model."""
    return read_json(folder / "modules.json") or []


def deciding_files(folder: Path, *, code: bool) -> Iterator[Path]:
    """Weights, configurations and vocabularies of the model and its modules, and its own code, in a fixed order."""
    places = {folder, *(folder / module["path"] for module in modules(folder))}
    found = {file for place in places for pattern in DECIDING for file in place.glob(pattern)}
    yield from sorted(found | set(folder.rglob("*.py") if code else ()))


def longest_text(folder: Path) -> int | None:
    """Tokens that a text model reads at most, as its files say; ``None`` if they do not."""
    place = transformer_folder(folder)
    config = read_json(place / "config.json") or {}
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    if positions and config.get("model_type") in PADDED_POSITIONS:
        padding = config.get("pad_token_id")
        positions -= 2 if padding is None else padding + 1
    tokenizer = read_json(place / "tokenizer_config.json") or {}
    sentences: dict[str, Any] = next(map(read_json, sorted(place.glob("sentence_*_config.json"))), {})
    stated = sentences.get("max_seq_length") or tokenizer.get("model_max_length")
    limits = [int(limit) for limit in (positions, stated) if limit and limit > 0]
    return min(limits, default=None)


def said_of_length(settings: TextEncoder) -> str | None:
    """What to tell of a ``max_length`` that somebody chose and that the model cannot keep."""
    if settings.model == BUILTIN or "max_length" not in settings.model_fields_set:
        return None
    limit = longest_text(model_folder("text", settings))
    if limit is None or limit >= settings.max_length:
        return None
    return (
        f"encoders.text.max_length is {settings.max_length}: the model reads {limit} tokens, longer texts are cut there"
    )


def transformer_folder(folder: Path) -> Path:
    """Where in a model's folder its transformer lies, with tokenizer and configuration."""
    inner = (module["path"] for module in modules(folder) if module["type"].endswith("Transformer"))
    return folder / next(inner, "")


def read_json(file: Path) -> Any:
    """What a file of JSON says; ``None`` if there is no such file.

    Raises:
        ConfigError: it is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON ({error}): fetch the model again") from error

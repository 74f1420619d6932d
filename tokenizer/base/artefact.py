"""A trained tokenizer on disk: ``config.json``, ``model.safetensors``, ``metrics.json``, tied by a fingerprint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import TokenizerError
from tokenizer.base.methods import build
from tokenizer.base.tokenizer import Tokenizer

CONFIG, MODEL, METRICS = "config.json", "model.safetensors", "metrics.json"


class Description(BaseModel):
    """What ``config.json`` holds: all it takes to rebuild the model and to tell it from others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    encoders: dict[str, str]
    text_dim: int = Field(ge=1)
    image_dim: int = Field(ge=1)
    config: TokenizerConfig
    versions: dict[str, str]


@dataclass(frozen=True)
class Artefact:
    """A tokenizer with its identity: of its encoders by modality (``encoders``) and of itself (``fingerprint``)."""

    model: Tokenizer
    config: TokenizerConfig
    encoders: dict[str, str]
    fingerprint: str
    metrics: dict[str, Any]


def save(model: Tokenizer, folder: Path, metrics: dict[str, Any], encoders: dict[str, str]) -> str:
    """Write a tokenizer into ``folder`` and return its fingerprint.

    ``config.json`` comes last, so that a folder that has it is whole; each file appears all at once.

    Raises:
        TokenizerError: the model holds numbers that are not finite; nothing is written.
    """
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise TokenizerError(f"the tokenizer is broken and was not saved: {broken[0]} is not finite; train it again")
    folder.mkdir(parents=True, exist_ok=True)
    weights = format_tensors({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()})
    description = Description(
        fingerprint=fingerprint(weights, model.config, encoders),
        encoders=encoders,
        text_dim=model.text_dim,
        image_dim=model.image_dim,
        config=model.config,
        versions={"torch": torch.__version__},
    )
    (folder / CONFIG).unlink(missing_ok=True)
    _write(folder / MODEL, weights)
    _write(folder / METRICS, json.dumps(metrics, indent=2, sort_keys=True).encode())
    _write(folder / CONFIG, description.model_dump_json(indent=2).encode())
    return description.fingerprint


def load(folder: str | Path, device: str | torch.device = "cpu") -> Artefact:
    """Read a tokenizer back, in eval mode on ``device``.

    Raises:
        TokenizerError: a file is missing, broken or not the one that was saved; the message names it.
    """
    folder = Path(folder)
    description = _description(folder / CONFIG)
    weights = _read(folder / MODEL)
    actual = fingerprint(weights, description.config, description.encoders)
    if actual != description.fingerprint:
        raise TokenizerError(
            f"{folder / MODEL} and {folder / CONFIG} do not belong together: their fingerprint is {actual}, "
            f"the recorded one {description.fingerprint}; restore both or train again"
        )
    model = build(description.config, description.text_dim, description.image_dim)
    try:
        model.load_state_dict(parse_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        raise TokenizerError(f"{folder / MODEL} does not hold this tokenizer's weights: {error}") from error
    try:
        metrics = json.loads(_read(folder / METRICS))
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{folder / METRICS} is not JSON: {error}") from error
    return Artefact(model.to(device).eval(), description.config, description.encoders, description.fingerprint, metrics)


def fingerprint(weights: bytes, config: TokenizerConfig, encoders: dict[str, str]) -> str:
    """16 hexadecimal digits that name the weights, the configuration and the encoders."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256()
    named = json.dumps(encoders, sort_keys=True)
    for part in (weights, canonical.encode(), named.encode()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def _description(path: Path) -> Description:
    try:
        return Description.model_validate_json(_read(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise TokenizerError(f"{path} does not describe a tokenizer: {where}: {fault['msg']}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read ({error.strerror}); the tokenizer is not whole") from error


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)

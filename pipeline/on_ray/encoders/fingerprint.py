"""What names an encoder: its weights, preprocessing and pooling; computed without loading the model, or torch."""

import hashlib
from pathlib import Path

from pipeline.config.models import Encoder, Encoders, VectorColumn
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor
from schemas.semantic_id import MODALITIES

BUILTIN = "builtin"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*/config.json")


def encoder_fingerprints(encoders: Encoders) -> dict[str, str]:
    """By modality the name that its encoder's vectors are stored under, 16 hexadecimal digits.

    Batch size is no part of it. Reads a model's files once, some seconds a gigabyte.

    Raises:
        ConfigError: as :func:`model_folder`.
    """
    return {modality: _fingerprint(modality, getattr(encoders, modality)) for modality in MODALITIES}


def model_folder(modality: str, settings: Encoder) -> Path:
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


def _fingerprint(modality: str, settings: Encoder | VectorColumn) -> str:
    if isinstance(settings, VectorColumn):
        return settings.fingerprint(modality)
    digest = hashlib.sha256(modality.encode())
    if settings.model == BUILTIN:
        digest.update((TextDescriptor() if modality == "text" else ImageDescriptor()).fingerprint.encode())
        return digest.hexdigest()[:16]
    folder = model_folder(modality, settings)
    for file in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    length = settings.max_length if modality == "text" else None
    digest.update(f"{settings.pooling}|{length}|{settings.dtype}".encode())
    return digest.hexdigest()[:16]

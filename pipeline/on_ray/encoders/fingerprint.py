"""What names an encoder: its weights, preprocessing and settings; computed without loading the model, or torch."""

import hashlib

from pipeline.config.encoders import Encoder, Encoders, VectorColumn
from pipeline.on_ray.encoders.builtin import ImageDescriptor, TextDescriptor
from pipeline.on_ray.encoders.model_checks import usable_folder
from pipeline.on_ray.encoders.model_files import BUILTIN, deciding_files
from schemas.semantic_id import MODALITIES

DECIDES_NOTHING = {"model", "revision", "batch_size"}  # of the settings; a model is known by its files


def encoder_fingerprints(encoders: Encoders) -> dict[str, str]:
    """By modality the name that its encoder's vectors are stored under, 16 hexadecimal digits.

    Batch size is no part of it. Reads a model's files once, some seconds a gigabyte.

    Raises:
        ConfigError: as :func:`pipeline.on_ray.encoders.model_checks.usable_folder`.
    """
    return {modality: _fingerprint(modality, getattr(encoders, modality)) for modality in MODALITIES}


def _fingerprint(modality: str, settings: Encoder | VectorColumn) -> str:
    if isinstance(settings, VectorColumn):
        return settings.fingerprint(modality)
    digest = hashlib.sha256(modality.encode())
    if settings.model == BUILTIN:
        digest.update((TextDescriptor() if modality == "text" else ImageDescriptor()).fingerprint.encode())
        return digest.hexdigest()[:16]
    folder = usable_folder(modality, settings)
    for file in deciding_files(folder, code=settings.trust_remote_code):
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    digest.update(settings.model_dump_json(exclude=DECIDES_NOTHING).encode())
    return digest.hexdigest()[:16]

"""Which columns hold vectors, and of what."""

import re
from dataclasses import dataclass

import numpy as np

from pipeline.inspect.guess.columns import Profile, looks_like_picture

FEWEST = 8  # numbers of a vector; shorter arrays are sizes, ratings and the like
OF_PICTURES = re.compile(r"(^|_)(image|img|picture|pic|photo|foto|bild|visual|vision|cover|poster|frame|video)s?(_|$)")


@dataclass(frozen=True)
class Vectors:
    """A column of vectors, the width of its vectors, and what its bytes are."""

    column: str
    width: int
    dtype: str | None


def guess_vectors(columns: list[Profile]) -> dict[str, Vectors]:
    """By modality the first column that holds its vectors: by its name those of pictures, else those of texts."""
    found: dict[str, Vectors] = {}
    for profile in columns:
        vectors = _vectors(profile)
        if vectors:
            modality = "image" if OF_PICTURES.search(profile.label) else "text"
            found.setdefault(modality, vectors)
    return found


def _vectors(profile: Profile) -> Vectors | None:
    widths = {len(v) for v in profile.present if len(v)} if _may_hold(profile) else set()
    if len(widths) != 1:
        return None
    (width,) = widths
    if profile.kind != "binary":
        return Vectors(profile.name, width, None) if width >= FEWEST else None
    for dtype, size in (("float32", 4), ("float64", 8), ("float16", 2)):
        if width % size == 0 and width // size >= FEWEST and _are_vectors(profile, dtype):
            return Vectors(profile.name, width // size, dtype)
    return None


def _may_hold(profile: Profile) -> bool:
    if profile.kind == "binary":
        return looks_like_picture(profile) is None
    return re.fullmatch(r"array<(float|double|int|bigint|decimal.*)>", profile.kind) is not None


def _are_vectors(profile: Profile, dtype: str) -> bool:
    """Whether the bytes are numbers of the size that encoders give."""
    values = np.concatenate([np.frombuffer(bytes(v), np.dtype(dtype).newbyteorder("<")) for v in profile.present])
    sizes = np.abs(values.astype(np.float64))
    return bool(np.isfinite(sizes).all() and np.mean((sizes > 1e-6) & (sizes < 1e3)) > 0.9)

"""An item's picture: found within its root, decoded within bounds, and normalised to one form.

The form: first frame, upright, on white, 8-bit RGB, its longer side at most ``size`` pixels, as JPEG without
anything but pixels.

It is a function of the picture's bytes and ``size`` alone, under one version of Pillow: a JPEG whose shorter side has
``4 * size`` pixels or more is decoded at a half, a quarter or an eighth, the smallest whose sides have ``2 * size``.
"""

import errno
import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from schemas.reasons import Reason

# What catalogues hold. Decoders that start another program, read another file, take any bytes for a picture (TGA), or
# decode more than the header said (ICO) are left out.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
MAX_SCANS = 100  # of a JPEG, as libtiff has it: each passes over the whole picture, however few its bytes are
QUALITY = 90
URL = "(?i)^https?://"  # in Python's regular expressions as in Java's
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)
TURNS: dict[Any, Image.Transpose] = {  # by EXIF's orientation, which may be anything
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFault(Exception):
    """A picture that cannot be used: ``reason`` is the quarantine's code, the message says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_local(root: str) -> bool:
    """Whether a root is a folder that every machine mounts, rather than an object store."""
    return "://" not in root or root.startswith("file://")


def is_url(reference: str) -> bool:
    """Whether a picture is asked for over http or https."""
    return re.match(URL, reference) is not None


def shown(reference: str) -> str:
    """A reference as messages have it: short, a URI without user and query, which may hold a secret."""
    if "://" in reference:
        reference = re.sub(r"//[^/?#]*@", "//", reference).partition("?")[0]
    return reference[:200]


def read_image(reference: str, root: str, max_bytes: int) -> bytes:
    """The bytes of a picture on a mounted file system.

    Args:
        reference: a path relative to ``root``, an absolute path, or a ``file:`` URI.
        root: the folder that every picture must lie under, symbolic links followed.

    Raises:
        ImageFault: ``image_not_allowed``, ``missing_image`` or ``image_too_large``.
    """
    path = local_path(reference, root)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ImageFault(Reason.MISSING_IMAGE, f"{shown(reference)} is not a file")
        if found.st_size > max_bytes:
            size = f"{found.st_size} bytes, allowed are {max_bytes}"
            raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{shown(reference)} has {size}")
        with path.open("rb") as file:
            return file.read(max_bytes + 1)  # a file may grow under our hands
    except OSError as error:
        raise _not_there(error, reference) from error


def local_path(reference: str, root: str) -> Path:
    """Where ``reference`` leads.

    Raises:
        ImageFault: ``image_not_allowed`` where that is outside ``root``, or the scheme is not ``file``.
    """
    if "://" in reference or reference.lower().startswith(("file:", "data:")):
        try:
            uri = urlsplit(reference)
        except ValueError as error:
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(reference)} is no URI") from error
        if uri.scheme != "file" or uri.netloc not in ("", "localhost"):
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(reference)}: only files under {root} are allowed")
        reference = unquote(uri.path)
    if "\0" in reference:
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, "the path has a NUL character")
    base = os.path.realpath(root.removeprefix("file://"))
    try:
        path = os.path.realpath(Path(base) / reference)
    except OSError as error:
        raise _not_there(error, reference) from error
    if os.path.commonpath([base, path]) != base:
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(reference)} leads outside {root}")
    return Path(path)


def _not_there(error: OSError, reference: str) -> ImageFault:
    """The fault of one picture; a failing disk or mount says nothing of the item, and must stop the job."""
    if error.errno not in NOT_THERE:
        raise error
    return ImageFault(Reason.MISSING_IMAGE, f"{shown(reference)}: {error.strerror}{hint(reference)}")


def hint(reference: str) -> str:
    """What may be wrong with a reference to nothing."""
    return "; its backslashes are part of a name here: write / between folders" if "\\" in reference else ""


def normalise(data: bytes, *, size: int, max_bytes: int, max_pixels: int) -> bytes:
    """A picture in any format, mode and orientation, in the one form that the lake keeps.

    Raises:
        ImageFault: ``image_too_large`` before anything is decoded, or ``image_decode``.
    """
    if len(data) > max_bytes:
        raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{len(data)} bytes, allowed are {max_bytes}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bombs(image, data, max_pixels)
            image.draft("RGB", (2 * size, 2 * size))  # JPEG decodes a smaller picture at a fraction of the cost
            image.load()
            turn = _turn(image)
            picture = _small_rgb(image, size)
        if turn is not None:
            picture = picture.transpose(turn)
        picture.info = {}  # else a comment would be written with the pixels
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=QUALITY)
        return target.getvalue()
    except ImageFault:
        raise
    except Image.DecompressionBombError as error:
        raise ImageFault(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except UnidentifiedImageError as error:
        detail = f"no known picture format; begins with {_head(data)}"
        raise ImageFault(Reason.IMAGE_DECODE, detail) from error
    except Exception as error:  # a decoder fed hostile bytes may raise anything, and the item must go on
        detail = f"{type(error).__name__}: {error}; begins with {_head(data)}"
        raise ImageFault(Reason.IMAGE_DECODE, detail[:500]) from error


def _head(data: bytes) -> str:
    return repr(data[:16].decode("ascii", "replace").split("\n")[0])


def _refuse_bombs(image: Image.Image, data: bytes, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{width}×{height} pixels, allowed are {max_pixels}")
    scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans > MAX_SCANS:
        raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{scans} scans, allowed are {MAX_SCANS}")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the picture must be turned to be upright."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001  (metadata that cannot be read says nothing against the pixels)
        return None


def _small_rgb(image: Image.Image, size: int) -> Image.Image:
    """RGB on white, shrunk as early as the mode allows: a full-size copy of every step would be a gigabyte."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image, size).convert("RGB")
    if image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    if image.mode in ("RGBA", "LA"):
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, size: int) -> Image.Image:
    """A small picture of 16- or 32-bit values scaled to 8 bits; Pillow's own conversion clips them."""
    highest = image.getextrema()[1]
    assert isinstance(highest, (int, float))  # these modes have one band
    top = 65_535.0 if highest > 255 or image.mode.startswith("I;16") else 255.0
    top = max(top, highest) if math.isfinite(highest) else top
    small = image.convert("F")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    values = np.nan_to_num(np.asarray(small, dtype=np.float64), posinf=top, neginf=0)
    return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))

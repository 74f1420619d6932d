"""An item's picture: found within its root, decoded within bounds, and normalised to one form.

The form: first frame, upright, on white, 8-bit RGB, its longer side at most ``size`` pixels, as JPEG.
"""

import errno
import io
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats that Pillow decodes itself: nothing that starts another program or reads another file.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA", "AVIF", "JPEG2000")
QUALITY = 90
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class ImageFault(Exception):
    """A picture that cannot be used: ``reason`` is the quarantine's code, the message says why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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
            raise ImageFault("missing_image", f"{reference} is not a file")
        if found.st_size > max_bytes:
            raise ImageFault("image_too_large", f"{reference} has {found.st_size} bytes, allowed are {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        if error.errno not in NOT_THERE:  # a failing disk or mount says nothing of the item: the job must stop
            raise
        raise ImageFault("missing_image", f"there is no file {reference[:200]} under {root}") from error


def local_path(reference: str, root: str) -> Path:
    """Where ``reference`` leads.

    Raises:
        ImageFault: ``image_not_allowed`` where that is outside ``root``, or the scheme is not ``file``.
    """
    if "://" in reference or reference.startswith("file:"):
        try:
            uri = urlsplit(reference)
        except ValueError as error:
            raise ImageFault("image_not_allowed", f"{reference[:200]}: {error}") from error
        if uri.scheme != "file" or uri.netloc not in ("", "localhost"):
            raise ImageFault("image_not_allowed", f"{reference}: only files under {root} are allowed")
        reference = unquote(uri.path)
    if "\0" in reference:
        raise ImageFault("image_not_allowed", "the path has a NUL character")
    base = os.path.realpath(root.removeprefix("file://"))
    try:
        path = os.path.realpath(Path(base) / reference)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        raise ImageFault("missing_image", f"{reference[:200]}: {error.strerror}") from error
    if os.path.commonpath([base, path]) != base:
        raise ImageFault("image_not_allowed", f"{reference} leads outside {root}")
    return Path(path)


def normalise(data: bytes, *, size: int, max_bytes: int, max_pixels: int) -> bytes:
    """A picture in any format, mode and orientation, in the one form that the lake keeps.

    Raises:
        ImageFault: ``image_too_large`` before anything is decoded, or ``image_decode``.
    """
    if len(data) > max_bytes:
        raise ImageFault("image_too_large", f"{len(data)} bytes, allowed are {max_bytes}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageFault("image_too_large", f"{width}×{height} pixels, allowed are {max_pixels}")
            image.draft("RGB", (2 * size, 2 * size))  # JPEG decodes a smaller picture at a fraction of the cost
            picture = _rgb_on_white(ImageOps.exif_transpose(image))
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=QUALITY)
        return target.getvalue()
    except ImageFault:
        raise
    except Image.DecompressionBombError as error:
        raise ImageFault("image_too_large", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageFault("image_decode", f"no known picture format; begins with {_head(data)}") from error
    except Exception as error:  # a decoder fed hostile bytes may raise anything, and the item must go on
        raise ImageFault("image_decode", f"{type(error).__name__}: {error}; begins with {_head(data)}"[:500]) from error


def _head(data: bytes) -> str:
    return repr(data[:16].decode("ascii", "replace").split("\n")[0])


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16- or 32-bit values scaled to 8 bits; Pillow's own conversion clips them."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65_535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 255.0
    top = max(top, values.max(initial=0))
    return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))

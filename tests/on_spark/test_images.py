import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.on_spark.pictures import ImageFault, local_path, normalise, read_image

BOUNDS = {"size": 64, "max_bytes": 1_000_000, "max_pixels": 1_000_000}
RED = (220, 30, 30)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def picture(mode: str, size: tuple[int, int] = (100, 50)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1]), fill=RED)
    return image.quantize(8) if mode == "P" else image.convert(mode)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
        ("CMYK", "TIFF"),
        ("F", "TIFF"),
    ],
)
def test_every_mode_and_format_becomes_one_form(mode: str, kind: str) -> None:
    image = opened(normalise(encoded(picture(mode), kind), **BOUNDS))
    assert image.size == (64, 32)
    left, right = image.getpixel((8, 16)), image.getpixel((56, 16))
    assert min(right) > 240
    assert left[1] < 140


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65_535, 64).astype(np.uint16), (64, 1))
    grey = np.asarray(opened(normalise(encoded(Image.fromarray(ramp), "PNG"), **BOUNDS)).convert("L"))
    assert grey[:, 0].mean() < 8
    assert abs(grey[:, 32].mean() - 128) < 8
    assert grey[:, 63].mean() > 247


def test_transparency_lies_on_white_and_orientation_is_upright() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert opened(normalise(encoded(clear, "PNG"), **BOUNDS)).getpixel((5, 5)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90° clockwise
    turned = opened(normalise(encoded(picture("RGB"), "JPEG", exif=exif), **BOUNDS))
    assert turned.size == (32, 64)
    assert turned.getpixel((16, 8))[1] < 140
    assert min(turned.getpixel((16, 56))) > 240


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("blue", "red")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert opened(normalise(data, **BOUNDS)).getpixel((5, 5))[2] > 240


def test_small_pictures_are_not_enlarged() -> None:
    assert opened(normalise(encoded(Image.new("RGB", (1, 1), "red"), "PNG"), **BOUNDS)).size == (1, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image_decode"),
        (b"<html>not found</html>", "image_decode"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "image_decode"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "image_decode"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_decode"),
        (encoded(picture("RGB", (400, 400)), "JPEG")[:900], "image_decode"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image_decode"),
        (b"x" * 1_000_001, "image_too_large"),
        (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "image_too_large"),
    ],
)
def test_what_is_no_picture_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageFault) as caught:
        normalise(data, **BOUNDS)
    assert caught.value.reason == reason
    with pytest.raises(ImageFault, match=re.escape(str(caught.value))):  # the quarantine's detail must not change
        normalise(bytes(bytearray(data)), **BOUNDS)


def test_the_same_picture_gives_the_same_bytes() -> None:
    data = encoded(picture("RGB"), "PNG")
    assert normalise(data, **BOUNDS) == normalise(data, **BOUNDS)


def test_paths_stay_under_their_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.jpg"
    (root / "sub").mkdir(parents=True)
    outside.write_bytes(b"secret")
    (root / "sub" / "a b.jpg").write_bytes(b"inside")
    (root / "link.jpg").symlink_to(outside)
    (root / "good.jpg").symlink_to(root / "sub" / "a b.jpg")
    allowed = ["sub/a b.jpg", "good.jpg", str(root / "sub" / "a b.jpg"), f"file://{root}/sub/a%20b.jpg"]
    for reference in allowed:
        assert read_image(reference, str(root), 100) == b"inside"
    for reference in ("../outside.jpg", str(outside), f"file://{outside}", "link.jpg", "http://host/a.jpg", "a\0b"):
        with pytest.raises(ImageFault) as caught:
            local_path(reference, str(root))
        assert caught.value.reason == "image_not_allowed", reference


def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "big.jpg").write_bytes(b"x" * 101)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for reference, reason in {
        "none.jpg": "missing_image",
        "folder.jpg": "missing_image",
        "pipe.jpg": "missing_image",
        "x" * 5000: "missing_image",
        "big.jpg": "image_too_large",
    }.items():
        with pytest.raises(ImageFault) as caught:
            read_image(reference, str(tmp_path), 100)
        assert caught.value.reason == reason, reference[:20]

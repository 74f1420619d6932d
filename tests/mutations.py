"""Valid pictures of every format, and ways to break them: what the fuzzing of the input draws from."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, PngImagePlugin

Mutation = tuple[str, int, int, bytes]  # kind, place (any whole number), length, bytes

EDGES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0")
FRAGMENTS = (
    *("<", "<a ", "<!--", "-->", "<![CDATA[", "<script>", "</script >", "<style", "<p title='", '"', "'", ">", "</"),
    *("&amp;", "&#", "&#x110000;", "&#" + "9" * 5000, "&nbsp", "\0", "\u202e", "\u200b", "\u200d", "\ufeff", "\ufffd"),
    *(
        "\u0301\u0323",
        "e\u0301",
        "é",
        "Ⅻ",
        "ﬃ",
        "İ",
        "👩‍🌾",
        "🏴",
        "海",
        "\r\n",
        "\t",
        " ",
        "the",
        "of a",
        "x" * 300,
        "\U0010ffff",
    ),
    *(
        "../",
        "/etc/passwd",
        "file:///",
        "http://h/",
        "FILE:",
        "data:image/png;base64,",
        "good.jpg",
        "%00",
        "%2e%2e/",
        "\\",
    ),
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def _drawing(mode: str = "RGB") -> Image.Image:
    image = Image.linear_gradient("L").resize((48, 36)).convert("RGB")
    ImageDraw.Draw(image).ellipse((6, 6, 40, 30), fill=(200, 40, 40))
    return image.quantize(16) if mode == "P" else image.convert(mode)


def valid_pictures() -> dict[str, bytes]:
    """One small picture of each format, mode and kind of metadata, by name."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "a note", zip=True)
    notes.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>", zip=True)
    rgb, frames = _drawing(), {"save_all": True, "append_images": [Image.new("RGB", (48, 36), "blue")]}
    profile = b"\0" * 24 + b"ICC" + bytes(range(100))
    return {
        "jpeg": encoded(rgb, "JPEG", exif=exif, icc_profile=profile, comment=b"a comment"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(_drawing("L"), "JPEG", restart_marker_blocks=2),
        "jpeg cmyk": encoded(_drawing("CMYK"), "JPEG"),
        "mpo": encoded(rgb, "MPO", **frames),
        "png": encoded(rgb, "PNG", pnginfo=notes, exif=exif, icc_profile=profile),
        "png palette": encoded(_drawing("P"), "PNG", transparency=3),
        "png alpha": encoded(_drawing("RGBA"), "PNG"),
        "png 16 bits": encoded(Image.new("I;16", (48, 36), 40_000), "PNG"),
        "png bits": encoded(_drawing("1"), "PNG"),
        "apng": encoded(rgb, "PNG", **frames),
        "gif": encoded(_drawing("P"), "GIF", comment=b"c" * 300),
        "gif animated": encoded(rgb, "GIF", **frames, duration=40),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp lossless": encoded(_drawing("RGBA"), "WEBP", lossless=True),
        "webp animated": encoded(rgb, "WEBP", **frames),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(_drawing("P"), "BMP"),
        "tiff": encoded(rgb, "TIFF", exif=exif),
        "tiff lzw": encoded(_drawing("RGBA"), "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(_drawing("P"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff packbits": encoded(_drawing("1"), "TIFF", compression="packbits"),
        "tiff group 4": encoded(_drawing("1"), "TIFF", compression="group4"),
        "tiff cmyk": encoded(_drawing("CMYK"), "TIFF", compression="zstd"),
        "tiff floats": encoded(_drawing("F"), "TIFF"),
        "tiff 16 bits": encoded(Image.new("I;16", (48, 36), 40_000), "TIFF"),
        "avif": encoded(rgb, "AVIF", speed=10, exif=exif),
        "avif animated": encoded(rgb, "AVIF", speed=10, **frames),
        "jpeg 2000": encoded(rgb, "JPEG2000"),  # the last four are no accepted formats
        "ico": encoded(rgb, "ICO"),
        "tga": encoded(rgb, "TGA"),
        "ppm": encoded(rgb, "PPM"),
    }


def _flip(data: bytes, at: int, length: int, given: bytes) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << length % 8)]) + data[at + 1 :]


KINDS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "flip a bit": _flip,
    "truncate": lambda data, at, length, given: data[:at],
    "overwrite": lambda data, at, length, given: data[:at] + given + data[at + len(given) :],
    "insert": lambda data, at, length, given: data[:at] + given + data[at:],
    "delete": lambda data, at, length, given: data[:at] + data[at + length :],
    "repeat": lambda data, at, length, given: data[: at + length] + data[at : at + length] * 5 + data[at + length :],
    "splice": lambda data, at, length, given: data[:at] + given[min(at, length) :],
    "edit the header": lambda data, at, length, given: KINDS["overwrite"](data, at % 64 % len(data), length, given),
}


def mutated(data: bytes, mutations: Sequence[Mutation], *, whole: bool) -> bytes:
    """``data`` after every mutation; ``whole`` mends the checksums of a PNG, so that a decoder looks behind them."""
    for kind, at, length, given in mutations:
        if data:
            data = KINDS[kind](data, at % len(data), length, given)
    return _with_checksums(data) if whole else data


def _with_checksums(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = min(at + 8 + length, len(data) - 4)
        parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join(parts)


def random_mutation(rng: random.Random, others: Sequence[bytes]) -> Mutation:
    kind = rng.choice(list(KINDS))
    given = rng.choice(others) if kind == "splice" else rng.choice([*EDGES, rng.randbytes(rng.randint(1, 16))])
    return kind, rng.randrange(2**20), rng.randint(1, 200), given


def random_text(rng: random.Random) -> str | None:
    """A field or key: nothing, fragments that parsers trip over, or bytes that were no UTF-8."""
    if rng.random() < 0.1:
        return rng.choice([None, "", " "])
    text = "".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(1, 6))) * rng.choice([1, 1, 1, 40])
    return rng.randbytes(20).decode("utf-8", "replace") + text if rng.random() < 0.1 else text

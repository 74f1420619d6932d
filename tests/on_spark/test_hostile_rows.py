"""Every hostile row that we could think of in one catalogue: each ends as an item or in quarantine, for its reason."""

import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from mutations import encoded, valid_pictures
from nights import encode_night
from PIL import Image, PngImagePlugin
from pyspark.sql import SparkSession
from test_extract import catalogue, run, stored

from pipeline.config.models import Config
from pipeline.lake.storage import Lake
from schemas.reasons import Reason
from schemas.tables import QUARANTINE, VECTORS

PICTURES = valid_pictures()
REFUSED = ("jpeg 2000", "ico", "tga", "ppm")
RED = Image.new("RGB", (40, 30), "red")
TURNING = {"save_all": True, "append_images": [RED.rotate(angle) for angle in range(90)]}
BMP_OF_20_000 = b"BM" + bytes(12) + b"\x28\0\0\0" + b"\x20\x4e\0\0" * 2 + b"\1\0\x18\0" + bytes(40)
ABSURD_TAGS = b"II*\0\x08\0\0\0\xff\xff" + b"\0\1\4\0\xff\xff\xff\xff\0\0\0\0" * 9


@dataclass(frozen=True)
class Case:
    """A row, the bytes of the picture that it names, and what must become of it."""

    name: str
    reason: Reason | None = None  # why it is in quarantine
    lives: bool = True  # whether it is an item all the same
    title: str | None = "A lamp"
    picture: bytes | None = None
    reference: str | None = None
    ids: tuple[str | None, ...] = field(default=())  # where it is not the name, or several rows


def png_with(kind: bytes, content: bytes) -> bytes:
    """A red PNG with a chunk of ours behind its header."""
    red, chunk = encoded(RED, "PNG"), kind + content
    return red[:33] + len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + red[33:]


def jpeg_of_many_scans() -> bytes:
    data = encoded(Image.new("L", (400, 400), 90), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 5000 + data[-2:]


def noted(text: str, name: str = "Comment") -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt(name, text, zip=True)
    return encoded(RED, "PNG", pnginfo=notes)


def exif_that_cannot_be_written_again() -> bytes:
    turned, floats_as_text = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", b"\x01\x0f\0\x0b\0\0\0\x05\0\0\0\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + turned + floats_as_text + b"\0\0\0\0" + b"\xff" * 16
    return encoded(RED, "JPEG", exif=exif)


IMAGES = [
    *(Case(f"{name}.jpg", picture=PICTURES[name]) for name in PICTURES if name not in REFUSED),
    *(
        Case(f"{name} alone.png", Reason.IMAGE_DECODE, lives=False, title=None, picture=PICTURES[name])
        for name in REFUSED
    ),
    Case("1x1.gif", picture=encoded(Image.new("RGB", (1, 1)), "GIF")),
    Case("thread.png", picture=encoded(Image.new("L", (60_000, 1)), "PNG")),
    Case("many frames.gif", picture=encoded(RED, "GIF", **TURNING)),
    Case("comment of 100 kB.gif", picture=encoded(RED, "GIF", comment=b"c" * 100_000)),
    Case("profile of 2 MB.jpg", picture=encoded(RED, "JPEG", icc_profile=bytes(2_000_000))),
    Case("bad EXIF.jpg", picture=exif_that_cannot_be_written_again()),
    Case("text that unpacks to 100 MB.png", Reason.IMAGE_DECODE, picture=noted("x" * 100_000_000)),
    Case("profile bomb.png", Reason.IMAGE_DECODE, picture=png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(10**8)))),
    Case("20,000 x 20,000.png", Reason.IMAGE_TOO_LARGE, picture=encoded(Image.new("1", (20_000, 20_000)), "PNG")),
    Case("20,000 x 20,000 by its header.bmp", Reason.IMAGE_TOO_LARGE, picture=BMP_OF_20_000),
    Case("5,000 scans.jpg", Reason.IMAGE_TOO_LARGE, picture=jpeg_of_many_scans()),
    Case("too many bytes.jpg", Reason.IMAGE_TOO_LARGE, picture=b"\xff\xd8" + bytes(3_000_000)),
    Case("zero bytes.jpg", Reason.IMAGE_DECODE, picture=b""),
    Case("truncated.jpg", Reason.IMAGE_DECODE, picture=PICTURES["jpeg"][:-200]),
    Case("page.jpg", Reason.IMAGE_DECODE, picture=b"<html>404</html>"),
    Case("pointer.jpg", Reason.IMAGE_DECODE, picture=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    Case("drawing.jpg", Reason.IMAGE_DECODE, picture=b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    Case("absurd tags.tif", Reason.IMAGE_DECODE, picture=ABSURD_TAGS),
    Case("garbage.avif", Reason.IMAGE_DECODE, picture=b"\0\0\0\x20ftypavif" + b"\xff" * 200),
    Case("page alone.jpg", Reason.IMAGE_DECODE, lives=False, title=None, picture=b"<html>404</html>"),
]
REFERENCES = [
    *(
        Case(f"not allowed: {reference[:20]!r}", Reason.IMAGE_NOT_ALLOWED, reference=reference)
        for reference in (
            *(
                "../secret.jpg",
                "a/../../secret.jpg",
                "/etc/passwd",
                "out.jpg",
                "file:///etc/passwd",
                "FILE:/etc/passwd",
            ),
            *("file:%2e%2e/secret.jpg", "http://host/a.jpg", "s3://bucket/a.jpg", "jar:file:///a!/b", "a\0b"),
            *("data:image/png;base64," + "A" * 3000, "https://[bad", "file://host/a.jpg"),
        )
    ),
    Case("in.jpg is a link", reference="in.jpg"),
    Case("folder", Reason.MISSING_IMAGE, reference="."),
    Case("nowhere", Reason.MISSING_IMAGE, reference="none.jpg"),
    Case("reference of 1 MB", Reason.MISSING_IMAGE, reference="x" * 1_000_000),
    Case("a link to itself", Reason.MISSING_IMAGE, reference="loop.jpg"),
]
TEXTS = [
    Case("stop words", title="and the of it"),
    Case("emoji", title="👩‍🌾🏴‍☠️"),
    Case("bidirectional", title="\u202eA lamp\u2066"),
    Case("NUL inside", title="A\0 lamp"),
    Case("10 MB of <", title="<" * 10_000_000),
    Case("10 MB of open tags", title="<a " * 3_300_000),
    Case("a million elements deep", Reason.EMPTY, lives=False, title="<div>" * 10**6 + "A lamp"),  # past what is read
    Case("10 MB of words", title="word " * 2_000_000),
    Case("marks", title="a" + "\u0301\u0323" * 100_000),
    Case("number", title="A lamp of &#" + "9" * 5000 + ";"),
    Case("undecodable", Reason.BAD_TEXT, lives=False, title="\ufffd\ufffd lamp"),
    Case("no text", Reason.EMPTY, lives=False, title=""),
    Case("controls alone", Reason.EMPTY, lives=False, title="\0\u202e\u200b"),
    Case("markup alone", Reason.EMPTY, lives=False, title="<!-- A lamp --><br>"),
]
KEYS = [
    Case("", Reason.NULL_ID, lives=False, ids=(None, " ", "\t")),
    Case("k" * 1024 + "…", Reason.BAD_ID, lives=False, ids=("k" * 4096,)),
    Case("k" * 1024),
    Case("nul\ufffd", Reason.BAD_ID, lives=False, ids=("nul\0",)),
    Case("caf\ufffd", Reason.BAD_ID, lives=False),
    *(
        Case(i)
        for i in ("caf\u00e9", "cafe\u0301", "A", "\u0410", "a", "a ", "fi", "\ufb01", "1", "1.0", "\u0661", "a\u200b")
    ),
    Case("equal twice", ids=("equal twice", "equal twice")),
]
CASES = [*IMAGES, *REFERENCES, *TEXTS, *KEYS]


def rows_of(case: Case) -> list[dict[str, object]]:
    reference = case.reference or (case.name if case.picture is not None else None)
    return [{"id": i, "title": case.title, "image": reference} for i in case.ids or (case.name,)]


def hostile(folder: Path) -> tuple[Config, int]:
    """The catalogue, and how many rows it has."""
    root = folder / "pictures"
    root.mkdir(parents=True)
    (folder / "secret.jpg").write_bytes(PICTURES["jpeg"])
    (root / "out.jpg").symlink_to(folder / "secret.jpg")
    (root / "in.jpg").symlink_to("jpeg.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    for case in IMAGES:
        (root / case.name).write_bytes(case.picture or b"")
    rows = [row for case in CASES for row in rows_of(case)]
    rows += [{"id": "torn", "title": title, "image": None} for title in ("one", "two", "three")]
    image = {"column": "image", "root": "pictures", "max_bytes": 3_000_000}
    config = catalogue(folder, rows, image=image)
    with (folder / "items.json").open("ab") as file:
        file.write(b'no json\n{"id": "half a li\n{"id": "latin", "title": "caf\xe9"}\n')
    gates = config.gates.model_copy(update={"max_degraded_fraction": 1.0, "max_delete_fraction": 1.0})
    return config.model_copy(update={"gates": gates}), len(rows) + 3


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_every_row_ends_where_it_must_and_leaves_quarantine_when_mended(spark: SparkSession, tmp_path: Path) -> None:
    config, rows = hostile(tmp_path / "hostile")
    counts = run(spark, config)
    live = {case.name for case in CASES if case.lives} | {"torn"}
    expected = {(case.name, case.reason) for case in CASES if case.reason}
    expected |= {("torn", Reason.DUPLICATE_ID), ("", Reason.BAD_ROW), ("latin", Reason.BAD_ROW)}
    found = stored(config, QUARANTINE)
    assert {(row["item_id"], row["reason"]) for row in found.to_pylist()} == expected
    assert pc.max(pc.utf8_length(found["detail"])).as_py() <= 520
    assert set(stored(config)["item_id"].to_pylist()) == live
    rejected = sum(len(case.ids) or 1 for case in CASES if not case.lives)
    degraded = sum(case.lives and case.reason is not None for case in CASES)
    assert counts == {
        "rows_in": rows,
        "fetch_failed": 0,
        "rows_out": len(live),
        "new": len(live),
        "changed": 0,
        "refreshed": 0,
        "skipped": 1,  # the equal row
        "quarantined": rejected + 2 + 3,  # two torn rows, three bad lines
        "degraded": degraded,
        "deleted": 0,
    }

    encode_night(spark, config)
    vectors = Lake(config.lake).read(VECTORS, ["sha", "vector", "fault"])
    assert vectors["fault"].null_count == vectors.num_rows
    items = stored(config)
    shas = {sha for name in ("text_sha", "image_sha") for sha in items[name].drop_null().to_pylist()}
    assert set(vectors["sha"].to_pylist()) == shas
    norms = [np.linalg.norm(vector) for vector in vectors["vector"].to_pylist()]  # of two widths
    np.testing.assert_allclose(norms, 1, rtol=1e-2)

    mended = [json.dumps({"id": i, "title": f"lamp {i}", "image": None}) for i in sorted(live)]
    (tmp_path / "hostile" / "items.json").write_text("\n".join(mended))
    assert run(spark, config)["quarantined"] == 0
    assert stored_rows(config) == 0


def stored_rows(config: Config) -> int:
    return Lake(config.lake).read(QUARANTINE, ["item_id"]).num_rows


def corners(turn: Callable[[Image.Image], Image.Image]) -> list[tuple[int, int, int]]:
    """Colours at the corners of a picture that is red, green, blue and white, seen upright."""
    image = Image.new("RGB", (64, 48), "white")
    for colour, box in (("red", (0, 0, 32, 24)), ("lime", (32, 0, 64, 24)), ("blue", (0, 24, 32, 48))):
        image.paste(colour, box)
    seen = turn(image)
    width, height = seen.size
    return [seen.getpixel((x, y)) for x in (4, width - 5) for y in (4, height - 5)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_every_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    from PIL import ImageOps

    from pipeline.on_spark.pictures import normalise

    def stored_and_read(image: Image.Image, ours: bool) -> Image.Image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, kind, exif=exif)
        if ours:
            data = normalise(data, size=64, max_bytes=10**6, max_pixels=10**6)
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")

    ours = np.array(corners(lambda image: stored_and_read(image, True)))
    theirs = np.array(corners(lambda image: stored_and_read(image, False)))
    assert np.abs(ours - theirs).max() < 60


def test_nothing_but_pixels_is_kept() -> None:
    from pipeline.on_spark.pictures import normalise

    secret = b"SECRET" * 200
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    pictures = [
        encoded(RED, "JPEG", comment=secret, icc_profile=secret, exif=exif, xmp=secret),
        encoded(RED, "GIF", comment=secret),
        noted(secret.decode()),
        encoded(RED, "TIFF", exif=exif),
    ]
    plain = normalise(encoded(RED, "PNG"), size=64, max_bytes=10**6, max_pixels=10**6)
    for data in pictures:
        kept = normalise(data, size=64, max_bytes=10**6, max_pixels=10**6)
        assert b"SECRET" not in kept
        assert abs(len(kept) - len(plain)) < 100

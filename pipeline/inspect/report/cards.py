"""The items that a page shows: their texts and thumbnails, fetched for all sections at once."""

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from PIL import Image
from pyspark.sql import functions as F

from pipeline.inspect.report.subject import Subject
from pipeline.on_spark.expressions import content
from schemas.tables import ITEMS

SIDE = 96  # pixels of a thumbnail's longer side
QUALITY = 70
TEXT = 1000  # characters of a text that words are counted in
SHOWN = 140  # characters of a text that is shown
PICTURE_BYTES = 5_000_000  # of all thumbnails as text; those asked for last are left out

Card = dict[str, Any]
Key = tuple[str, str]  # item and content


class Cards:
    """Cards of items, one an item and content, which :meth:`fetch` gives a ``text`` and the number of a ``picture``."""

    def __init__(self) -> None:
        self._cards: dict[Key, Card] = {}
        self._pictured: dict[Key, None] = {}
        self.texts: dict[Key, str | None] = {}
        self.pictures: list[str] = []

    def card(self, row: Mapping[str, Any], *, picture: bool = True) -> Card:
        """The card of an item by its ``item_id`` and ``content``, which may be null where it cannot be known."""
        key = row["item_id"], row["content"] or ""
        if picture:
            self._pictured[key] = None
        return self._cards.setdefault(key, {"item_id": key[0], "content": key[1], "text": None, "picture": None})

    def want_text(self, row: Mapping[str, Any]) -> Key:
        """Where :attr:`texts` will have the first :data:`TEXT` characters of an item's text."""
        key = row["item_id"], row["content"]
        self.texts.setdefault(key)
        return key

    def fetch(self, about: Subject) -> None:
        """Fill the cards: Spark goes once over the texts, and over the pictures of the files that hold a wanted one."""
        keys = [key for key in dict.fromkeys([*self._cards, *self.texts]) if key[1]]
        if not keys:
            return
        items, contents = zip(*keys, strict=True)
        wanted = about.spark.createDataFrame(pa.table({"item_id": items, "content": contents}))
        stored = about.tables.read(ITEMS, located=True).where("NOT deleted")
        named = stored.withColumn("content", content(F.col("text_sha"), F.col("image_sha")))
        text = F.left("text", F.lit(TEXT)).alias("text")
        found = named.join(F.broadcast(wanted), on=["item_id", "content"], how="left_semi")
        files: dict[Key, str] = {}
        for row in found.select("item_id", "content", text, "file").collect():
            key = row["item_id"], row["content"]
            if key in self.texts:
                self.texts[key] = row["text"]
            if key in self._cards:
                self._cards[key]["text"] = shortened(row["text"])
            files[key] = min(row["file"], files.get(key, row["file"]))  # of versions alike, always the same one
        self._fetch_pictures(about, {key: files[key] for key in self._pictured if key in files})

    def _fetch_pictures(self, about: Subject, files: Mapping[Key, str]) -> None:
        if not files:
            return
        items, contents = zip(*files, strict=True)
        wanted = about.spark.createDataFrame(
            pa.table({"item_id": items, "content": contents, "file": list(files.values())})
        )
        stored = about.tables.read(ITEMS, files=sorted(set(files.values())), located=True)
        named = stored.where("image IS NOT NULL AND NOT deleted").withColumn(
            "content", content(F.col("text_sha"), F.col("image_sha"))
        )
        held = named.join(F.broadcast(wanted), on=["item_id", "content", "file"], how="left_semi")
        small = held.select("item_id", "content", "image").mapInArrow(
            _thumbnails, "item_id string, content string, image binary"
        )
        found = {(row["item_id"], row["content"]): row["image"] for row in small.collect()}
        for key in self._pictured:
            if found.get(key) is not None:
                self._cards[key]["picture"] = self.keep_picture(bytes(found[key]))

    def keep_picture(self, jpeg: bytes) -> int | None:
        """The number of a picture; ``None`` where there is no more room."""
        picture = base64.b64encode(jpeg).decode()
        if sum(map(len, self.pictures)) + len(picture) > PICTURE_BYTES:
            return None
        self.pictures.append(picture)
        return len(self.pictures) - 1


def shortened(text: str | None, most: int = SHOWN) -> str | None:
    """The beginning of a text on one line."""
    if text is None:
        return None
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a decoded or lazily opened picture."""
    image.draft("RGB", (2 * SIDE, 2 * SIDE))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small = image.convert("RGB")
    small.info = {}
    target = io.BytesIO()
    small.save(target, "JPEG", quality=QUALITY, optimize=True)
    return target.getvalue()


def _thumbnails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Runs on Spark's workers. The lake's pictures are JPEGs of our own making; one that is torn has no thumbnail."""
    for batch in batches:
        small: list[bytes | None] = []
        for data in batch.column("image").to_pylist():
            try:
                with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                    small.append(thumbnail(image))
            except OSError:
                small.append(None)
        yield batch.set_column(2, "image", pa.array(small, pa.binary()))

"""What Spark's workers do with a row, without Spark."""

import io

import pyarrow as pa
import pytest
from PIL import Image

import pipeline.on_spark.prepare as preparing
from pipeline.config.models import Catalog, ImageSource, Source
from pipeline.on_spark.prepare import Prepare

KNOWN = ("known_hash", "known_image_sha", "known_image_source")
CATALOG = Catalog(
    source=Source(path="-", format="parquet"), id="id", text="{title}", image=ImageSource(column="picture")
)


def picture(colour: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(target, "PNG")
    return target.getvalue()


def prepared(title: str, image: bytes, known: dict[str, str | None], catalog: Catalog = CATALOG) -> dict[str, object]:
    row = {"row": 0, "item_id": "a", "bad_row": None, "fields": {"title": title}} | known
    row |= {"image": image, "image_bytes": len(image)}
    (batch,) = Prepare(catalog)(iter([pa.RecordBatch.from_pylist([row])]))
    return batch.to_pylist()[0]


def test_the_picture_of_an_unchanged_item_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    red = picture("red")
    new = prepared("A lamp", red, dict.fromkeys(KNOWN))
    assert (new["status"], new["faults"]) == ("new", [])
    known = dict(zip(KNOWN, (new["content_hash"], new["image_sha"], new["image_source"]), strict=True))
    edited = prepared("A lamp, edited", red, known)
    assert (edited["status"], edited["image_sha"], edited["image"]) == ("changed", new["image_sha"], new["image"])
    assert prepared("A lamp", picture("blue"), known)["status"] == "changed"
    smaller = CATALOG.model_copy(update={"image": ImageSource(column="picture", size=16)})
    assert prepared("A lamp", red, known, smaller)["status"] == "unchanged"  # decoded again, and found to be the same

    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(preparing, "normalise", refuse)
    assert prepared("A lamp", red, known)["status"] == "unchanged"
    assert prepared("A lamp, edited", red, known)["faults"][0]["reason"] == "internal"

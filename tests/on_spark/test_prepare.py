"""What Spark's workers do with a row, without Spark."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

import pipeline.on_spark.prepare as preparing
from pipeline.config.models import Catalog, ImageSource, Source
from pipeline.on_spark.prepare import KNOWN, Prepare

NOTHING = dict.fromkeys(f"known_{name}" for name in KNOWN)


def catalog(**image: object) -> Catalog:
    bounds = ImageSource.model_validate({"column": "picture"} | image)
    return Catalog(source=Source(path="-", format="parquet"), id="id", text="{title}", image=bounds)


def picture(colour: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(target, "PNG")
    return target.getvalue()


def prepared(title: str, known: dict[str, str | None], settings: Catalog, **row: object) -> dict[str, object]:
    row = {"row": 0, "item_id": "a", "bad_row": None, "row_hash": "1", "picture_stat": None} | known | row
    row |= {"fields": {"title": title}, "image": row.get("image"), "image_bytes": 100}
    (batch,) = Prepare(settings)(iter([pa.RecordBatch.from_pylist([row])]))
    return batch.to_pylist()[0]


def known_of(item: dict[str, object]) -> dict[str, str | None]:
    return {f"known_{name}": item[name] for name in KNOWN}  # type: ignore[misc]


def test_an_item_is_new_changed_refreshed_or_unchanged() -> None:
    seen = {"image": picture("red"), "row_hash": "1", "picture_stat": "9-1"}
    new = prepared("A lamp", NOTHING, catalog(), **seen)
    assert (new["status"], new["faults"], new["row_hash"], new["picture_stat"]) == ("new", [], "1", "9-1")
    known = known_of(new)
    same = prepared("A lamp", known, catalog(), **seen)
    assert (same["status"], same["text"], same["image"]) == ("unchanged", None, None)
    for moved in ({"row_hash": "2"}, {"picture_stat": "9-2"}):
        refreshed = prepared("<b>A lamp</b>", known, catalog(), **seen | moved)
        assert (refreshed["status"], refreshed["text"], refreshed["image"]) == ("refreshed", "A lamp", new["image"])
        assert refreshed | moved == refreshed
    edited = prepared("A chair", known, catalog(), **seen | {"row_hash": "2"})
    assert (edited["status"], edited["text"], edited["image"]) == ("changed", "A chair", new["image"])
    assert prepared("A lamp", known, catalog(), **seen | {"image": picture("blue")})["status"] == "changed"


def test_by_bytes_the_picture_of_an_unchanged_item_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    settings, row = catalog(root=str(tmp_path), changed="bytes"), {"reference": "a.png"}
    new = prepared("A lamp", NOTHING, settings, **row)
    assert str(new["picture_stat"]).startswith("sha256:")
    known = known_of(new)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "normalise", lambda *_, **__: pytest.fail("decoded"))
        assert prepared("A lamp", known, settings, **row)["status"] == "unchanged"
    edited = prepared("A chair", known, settings, **row | {"row_hash": "2"})
    assert (edited["status"], edited["image"]) == ("changed", new["image"])
    (tmp_path / "a.png").write_bytes(picture("blue"))
    assert prepared("A lamp", known, settings, **row)["status"] == "changed"


@pytest.mark.parametrize(
    ("reference", "content", "stat"),
    [
        ("a.png", picture("red"), "9-1"),
        ("a.png", b"<html>", "9-1"),  # as long as the file stays, so does the fault
        ("a.png", bytes(5000), "9-1"),
        ("a.png", None, None),  # not to be read now, though the listing shows it: tried again the next night
        ("../a.png", picture("red"), None),
        ("", None, "9-1"),  # no picture: the source's own word for it
    ],
)
def test_what_says_that_a_picture_is_the_same_is_kept_if_it_was_looked_at(
    tmp_path: Path, reference: str, content: bytes | None, stat: str | None
) -> None:
    (tmp_path / "root").mkdir()
    if content is not None:
        (tmp_path / "root" / "a.png").write_bytes(content)
        (tmp_path / "a.png").write_bytes(content)
    settings = catalog(root=str(tmp_path / "root"), max_bytes=4000)
    item = prepared("A lamp", NOTHING, settings, reference=reference, picture_stat="9-1")
    assert (item["status"], item["picture_stat"]) == ("new", stat)

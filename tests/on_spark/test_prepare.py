"""What Spark's workers do with a row, without Spark."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from picture_server import picture_server, png
from PIL import Image

import pipeline.on_spark.prepare as preparing
from pipeline.config.models import Catalog, ImageSource, Source
from pipeline.on_spark import bounded
from pipeline.on_spark.expressions import VECTOR_SHA
from pipeline.on_spark.pictures import ImageFault
from pipeline.on_spark.prepare import KNOWN, MAX_PATH, Prepare
from pipeline.on_spark.vector_columns import VectorReader

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


def test_what_a_task_holds_is_bounded_by_bytes_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    item = prepared("A lamp", NOTHING, catalog(), image=picture("red"))
    assert isinstance(item["image"], bytes)
    monkeypatch.setattr(bounded, "BATCH_BYTES", 2 * len(item["image"]))
    row = {"item_id": "a", "bad_row": None, "row_hash": "1", "picture_stat": None, "fields": {"title": "A lamp"}}
    rows = [row | NOTHING | {"row": i, "image": picture("red"), "image_bytes": 100} for i in range(7)]
    batches = list(Prepare(catalog())(iter([pa.RecordBatch.from_pylist(rows)])))
    assert [batch["row"].to_pylist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_worker_starts_without_the_lake_and_one_that_lists_folders_without_the_configuration() -> None:
    """A night on which nothing changed waits for the imports of its workers, and there is a worker a core."""
    heavy = {"prepare": {"deltalake", "pandas"}, "folder_listing": {"deltalake", "pandas", "pydantic", "httpx"}}
    for module, names in heavy.items():
        said = f"import sys, pipeline.on_spark.{module}; print(*sys.modules.keys() & {names})"
        assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "\n"


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


def test_a_picture_by_url_is_the_items_own_until_another_one_came() -> None:
    with picture_server() as server:
        fetch = {"hosts": [server.host], "retries": 0}
        settings, url = catalog(fetch=fetch), server.url("/ok/a.png")
        known = known_of(new := prepared("A lamp", NOTHING, settings, reference=url, lane=0))
        assert (new["status"], new["image"] is not None) == ("new", True)
        assert str(new["picture_stat"]).startswith("url:")
        asked = {"reference": url, "lane": 0}

        unchanged = prepared("A lamp", known, settings, **asked)
        assert (unchanged["status"], server.statuses()) == ("unchanged", [200, 304])
        edited = prepared("A chair", known, settings, **asked)
        assert (edited["status"], edited["image"], edited["image_sha"]) == ("changed", None, new["image_sha"])
        assert edited["picture_stat"] == new["picture_stat"]

        smaller = prepared("A lamp", known, catalog(fetch=fetch, size=16), **asked)  # needs the picture whole
        verified = Prepare(settings, verify=True)
        row = {"row": 0, "item_id": "a", "bad_row": None, "fields": {"title": "A lamp"}, "row_hash": "1"}
        row |= known | asked | {"picture_stat": None, "image": None, "image_bytes": None}
        (again,) = verified(iter([pa.RecordBatch.from_pylist([row])]))
        assert (smaller["status"], again.to_pylist()[0]["status"]) == ("changed", "unchanged")
        assert server.statuses() == [200, 200, 304]

        server.down = True
        for title, status in (("A lamp", "unchanged"), ("A chair", "changed")):
            kept = prepared(title, known, settings, **asked | {"row_hash": "2"})
            assert (kept["status"], kept["faults"][0]["reason"]) == (status, "fetch_failed")  # type: ignore[index]
        assert (kept["image_sha"], kept["picture_stat"]) == (new["image_sha"], new["picture_stat"])
        lost = prepared("A lamp", NOTHING, settings, **asked)
        assert (lost["status"], lost["picture_stat"], lost["image_sha"]) == ("new", None, None)

        server.down = False
        gone = prepared("A lamp", known, settings, **asked | {"reference": server.url("/404/a.png")})
        assert (gone["status"], gone["image_sha"]) == ("changed", None)
        assert str(gone["picture_stat"]).startswith("url:")
        page = prepared("A lamp", NOTHING, settings, **asked | {"reference": server.url("/cut/a.png")})
        assert page["faults"][0]["reason"] == "image_decode"  # type: ignore[index]


def test_what_is_known_of_a_vector_is_no_picture_and_a_new_vector_is_written() -> None:
    with picture_server() as server:
        server.down = True
        settings = catalog(fetch={"hosts": [server.host], "retries": 0})
        asked = {"reference": server.url("/ok/a.png"), "lane": 0}
        was_vector = NOTHING | {"known_image_sha": VECTOR_SHA + "0" * 64, "known_text_sha": "0" * 64}
        lost = prepared("A lamp", was_vector, settings, **asked)
        assert (lost["status"], lost["image_sha"]) == ("changed", None)

        row = {"row": 0, "item_id": "a", "bad_row": None, "fields": {"title": "A {lamp"}, "row_hash": "1"}
        row |= {"picture_stat": None, "image": None, "image_bytes": None, "text_vector": [3.0, 4.0]} | asked
        work = Prepare(settings, {"text": VectorReader("v", None, 2)})
        (first,) = work(iter([pa.RecordBatch.from_pylist([row | NOTHING])]))
        known = known_of(first.to_pylist()[0])
        for row_hash, status in (("1", "unchanged"), ("2", "refreshed")):  # of another version of what made the vector
            (batch,) = work(iter([pa.RecordBatch.from_pylist([row | known | {"row_hash": row_hash}])]))
            (item,) = batch.to_pylist()
            assert (item["status"], item["text_vector"] is not None) == (status, status == "refreshed")


def test_a_text_that_is_only_shown_and_a_url_that_is_too_long_cost_no_other_modality() -> None:
    settings = catalog(fetch={"hosts": ["127.0.0.1"]})
    long = "http://127.0.0.1/" + "a" * MAX_PATH
    item = prepared("A lamp", NOTHING, settings, reference=long, lane=0)
    (fault,) = item["faults"]  # type: ignore[misc]
    assert (item["status"], fault["reason"]) == ("new", "image_not_allowed")
    assert "a URL has at most 4096 characters" in fault["detail"]
    row = {
        "row": 0,
        "item_id": "a",
        "bad_row": None,
        "fields": {"title": "\ufffd\ufffd"},
        "row_hash": "1",
        "picture_stat": None,
    }
    row |= NOTHING | {"text_vector": [3.0, 4.0]}
    plain = settings.model_copy(update={"image": None})
    (bad,) = Prepare(plain)(iter([pa.RecordBatch.from_pylist([row])]))
    (batch,) = Prepare(plain, {"text": VectorReader("v", None, 2)})(iter([pa.RecordBatch.from_pylist([row])]))
    assert [fault["reason"] for fault in bad.to_pylist()[0]["faults"]] == ["bad_text"]
    assert (batch.to_pylist()[0]["status"], batch.to_pylist()[0]["faults"]) == ("new", [])


def test_rows_of_several_batches_keep_their_pictures() -> None:
    with picture_server() as server:
        settings = catalog(fetch={"hosts": [server.host], "workers": 4}, changed="bytes")
        rows = [
            {"row": i, "item_id": str(i), "bad_row": None, "fields": {"title": "A lamp"}, "row_hash": "1", **NOTHING}
            | {"reference": server.url(f"/ok/{i}.png") if i % 3 else None, "lane": i % 8}
            | {"picture_stat": None, "image": None, "image_bytes": None}
            for i in range(300)
        ]
        schema = pa.RecordBatch.from_pylist(rows[1:2]).schema
        batches = [pa.RecordBatch.from_pylist(rows[at : at + 50], schema=schema) for at in range(0, 300, 50)]
        prepared_batches = list(Prepare(settings)(iter(batches)))
        assert [batch.num_rows for batch in prepared_batches] == [256, 44]
        found = {row["row"]: row["picture_stat"] for batch in prepared_batches for row in batch.to_pylist()}
        sums = {i: f"sha256:{hashlib.sha256(png(f'/ok/{i}.png')).hexdigest()}" for i in range(300) if i % 3}
        assert found == {i: sums.get(i) for i in range(300)}


@pytest.mark.parametrize("root", [None, "s3a://bucket/pictures", "/pictures"])
def test_a_reference_that_is_refused_is_told_without_the_secrets_in_it(root: str | None) -> None:
    reference = "s3a://key:needle@elsewhere/a.jpg?X-Amz-Signature=needle"
    raw = {"reference": reference, "image": None, "image_bytes": None, "outside": True}
    with pytest.raises(ImageFault, match=r"s3a://elsewhere/a\.jpg") as caught:
        preparing._image_bytes(raw, ImageSource(column="picture", root=root))
    assert "needle" not in str(caught.value)

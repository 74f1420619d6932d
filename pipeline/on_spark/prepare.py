"""Turn raw catalogue rows into items, one Arrow batch at a time, on Spark's Python workers.

Every row comes out: as an item with its text, picture and hashes, or rejected; and with every fault found on it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.models import Catalog, ImageSource
from pipeline.on_spark.bounded import bounded
from pipeline.on_spark.expressions import VECTOR_SHA
from pipeline.on_spark.fetch import Fetcher, Request, contents
from pipeline.on_spark.pictures import ImageFault, hint, is_local, is_url, normalise, read_image, shown
from pipeline.on_spark.texts import Template, TextFault, clean, fold
from pipeline.on_spark.vector_columns import VectorFault, VectorReader, vector_sha
from schemas.reasons import Reason
from schemas.tables import VECTOR

PREPROCESSING = "2"  # part of every row's hash: raise it when the canonical form of text or image changes
KNOWN = ("row_hash", "picture_stat", "text_sha", "image_sha")  # of the current item that a row is compared with
MAX_ID_BYTES = 1024
MAX_DETAIL = 500  # characters
OUT_OF_REACH = (Reason.MISSING_IMAGE, Reason.IMAGE_NOT_ALLOWED)
OF_URL = "url:"  # what the stat of a fetched picture begins with; what was asked for and the validator follow
FETCHED_ROWS = 256  # of a batch
MAX_PATH = 4096  # characters of a reference: more than any file system takes

FAULT = pa.struct([("reason", pa.string()), ("detail", pa.string())])
PREPARED = pa.schema(
    [
        ("row", pa.int64()),
        ("item_id", pa.string()),
        ("status", pa.string()),  # new, changed, refreshed (of equal content), unchanged or rejected
        ("text", pa.string()),
        ("image", pa.binary()),
        ("text_sha", pa.string()),
        ("image_sha", pa.string()),
        ("row_hash", pa.string()),
        ("picture_stat", pa.string()),
        ("text_vector", VECTOR),
        ("image_vector", VECTOR),
        ("faults", pa.list_(FAULT)),
    ]
)


@dataclass(frozen=True)
class Prepare:
    """The function that Spark maps over rows that may have changed; its fields travel to the workers.

    Input batches have ``row``, ``item_id``, ``bad_row`` (the line, where it could not be read), ``fields`` (a struct of
    the template's columns), ``row_hash``, ``picture_stat``, of the current item ``known_row_hash``,
    ``known_picture_stat``, ``known_text_sha`` and ``known_image_sha``, and, as the source has them, ``reference``,
    ``image`` (null where too large), ``image_bytes`` (its length), ``lane``, and the vectors that ``vectors`` has
    readers for. With ``verify`` pictures are fetched whole, also those that did not change.
    """

    catalog: Catalog
    vectors: Mapping[str, VectorReader] = field(default_factory=dict)
    verify: bool = False

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches of :data:`PREPARED` rows, in the order of the rows, or where pictures are fetched in that of these.

        What a task holds at once is a batch as Spark gives it, and what :mod:`pipeline.on_spark.bounded` lets by.
        """
        template = Template(self.catalog.text) if self.catalog.text else None
        fetches = self.catalog.image is not None and self.catalog.image.fetch is not None
        read = map(self._rows, batches)
        for rows in self._fetched(read) if fetches else read:
            for items in bounded(self._item_or_fault(row, template) for row in rows):
                yield pa.RecordBatch.from_pylist(items, schema=PREPARED)

    def _rows(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        given = {f"{m}_vector": reader.numbers(batch[f"{m}_vector"]) for m, reader in self.vectors.items()}
        plain = batch.drop_columns([*given]).to_pylist()
        vectors = ({name: numbers[row] for name, numbers in given.items()} for row in range(len(plain)))
        return [row | own for row, own in zip(plain, vectors, strict=True)]

    def _fetched(self, batches: Iterator[list[dict[str, Any]]]) -> Iterator[Iterable[dict[str, Any]]]:
        """The rows, with ``reply`` where their picture is a URL; each to be worked on before the next is taken."""
        image = self.catalog.image
        assert image is not None
        assert image.fetch is not None
        with Fetcher(image.fetch, image.max_bytes) as fetcher:
            rows = ((row, self._request(row)) for batch in batches for row in batch)
            replied = (row if reply is None else row | {"reply": reply} for row, reply in fetcher.replies(rows))
            for first in replied:
                yield chain([first], islice(replied, FETCHED_ROWS - 1))

    def _request(self, raw: Mapping[str, Any]) -> Request | None:
        """What to ask for; by the validator of the current item's picture if that was asked for in the same way."""
        reference = raw.get("reference")
        if not reference or not is_url(reference) or not raw["item_id"] or raw["bad_row"] is not None:
            return None
        if len(reference) > MAX_PATH:  # cut, it would be another picture's
            return None
        known, asked = raw["known_picture_stat"] or "", self._asked(reference)
        usable = known.startswith(asked) and raw["known_image_sha"] and not self.verify
        return Request(reference, raw["lane"], known.removeprefix(asked) if usable else "")

    def _asked(self, reference: str) -> str:
        """What the stat of a fetched picture begins with: another URL, or other bounds, need the picture whole."""
        image = self.catalog.image
        assert image is not None
        asked = json.dumps([PREPROCESSING, reference, image.size, image.max_bytes, image.max_pixels])
        return f"{OF_URL}{_sha(asked.encode())[:12]}:"

    def _item_or_fault(self, raw: Mapping[str, Any], template: Template | None) -> dict[str, Any]:
        """A row that trips a bug of ours is quarantined like any other; a failing disk stops the job."""
        try:
            return self._item(raw, template)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  (one row must not stop a night; it is quarantined as ours to mend)
            fault = _fault(Reason.INTERNAL, f"{type(error).__name__}: {error}")
            return {"row": raw["row"], "item_id": raw["item_id"] or "", "status": "rejected", "faults": [fault]}

    def _item(self, raw: Mapping[str, Any], template: Template | None) -> dict[str, Any]:
        faults: list[dict[str, str]] = []
        item_id, rejected = _item_id(raw["item_id"], raw["bad_row"], faults)
        of_text = [] if "text" in self.vectors else faults  # a text that is only shown costs nothing
        text = self._text(raw["fields"], template, of_text) if template and not rejected else None
        vectors = {} if rejected else {modality: self._vector(modality, raw, faults) for modality in self.vectors}
        text_sha = _sha(text.encode()) if text else None
        if "text" in vectors:
            text_sha = _vector_sha(vectors["text"])
        picture = self._picture(raw, text_sha, faults) if self.catalog.image and not rejected else None
        image_sha = _vector_sha(vectors["image"]) if "image" in vectors else picture.sha if picture else None
        if text_sha is None and image_sha is None and not rejected:
            rejected = True
            if not faults:
                columns = " or ".join(reader.column for reader in self.vectors.values())
                told = f", and no vector in {columns}" if columns else ""
                faults.append(_fault(Reason.EMPTY, f"the item has neither text nor image{told}"))
        item = {"row": raw["row"], "item_id": item_id, "faults": faults}
        if rejected:
            return item | {"status": "rejected"}
        item |= {"text_sha": text_sha, "image_sha": image_sha, "row_hash": raw["row_hash"]}
        item |= {"picture_stat": picture.stat if picture else None}
        item |= {"status": _status(raw, item)}
        if picture and picture.stale and item["status"] == "refreshed" and not vectors:
            item |= {"status": "unchanged"}  # nothing is known that is worth a version
        if item["status"] != "unchanged":
            item |= {"text": text, "image": picture.image if picture else None}
            item |= {f"{modality}_vector": x_D for modality, x_D in vectors.items()}
        return item

    def _vector(
        self, modality: str, raw: Mapping[str, Any], faults: list[dict[str, str]]
    ) -> NDArray[np.float32] | None:
        given_D = raw[f"{modality}_vector"]
        try:
            return None if given_D is None else self.vectors[modality].canonical(given_D)
        except VectorFault as fault:
            faults.append(_fault(Reason.BAD_VECTOR, str(fault)))
            return None

    def _text(self, fields: Mapping[str, str | None], template: Template, faults: list[dict[str, str]]) -> str | None:
        limit = self.catalog.max_text_chars
        try:
            return fold(template.fill({name: clean(value, limit) for name, value in fields.items()}), limit)
        except TextFault as fault:
            faults.append(_fault(Reason.BAD_TEXT, str(fault)))
            return None

    def _picture(self, raw: Mapping[str, Any], text_sha: str | None, faults: list[dict[str, str]]) -> "_Picture | None":
        """The picture; none where it could not be reached, so that the next night tries again.

        What was not fetched, or did not change, is the picture of the current item.
        """
        bounds = self.catalog.image
        assert bounds is not None
        of_vector = (raw["known_image_sha"] or "").startswith(VECTOR_SHA)  # which is no picture
        live = raw["known_picture_stat"], None if of_vector else raw["known_image_sha"], None
        by_url = "reply" in raw and bounds.changed == "stat"
        stat = self._asked(raw["reference"]) if by_url else raw["picture_stat"]
        try:
            data = contents(raw["reply"]) if "reply" in raw else _image_bytes(raw, bounds)
            if data is None:
                return _Picture(*live) if "reply" in raw else _Picture(stat, None, None)
            if by_url:
                stat += raw["reply"].validator
            if bounds.changed == "bytes" and "reference" in raw:
                stat = f"sha256:{_sha(data)}"
                known = _known(raw)
                seen = {"row_hash": raw["row_hash"], "picture_stat": stat, "text_sha": text_sha}
                if known["image_sha"] is not None and known == known | seen:
                    return _Picture(stat, known["image_sha"], None)
            image = normalise(data, size=bounds.size, max_bytes=bounds.max_bytes, max_pixels=bounds.max_pixels)
            return _Picture(stat, _sha(image), image)
        except ImageFault as fault:
            faults.append(_fault(fault.reason, str(fault)))
            if fault.reason is Reason.FETCH_FAILED:
                return _Picture(*live, stale=True)
            said = by_url and fault.reason is Reason.MISSING_IMAGE
            return None if fault.reason in OUT_OF_REACH and not said else _Picture(stat, None, None)


@dataclass(frozen=True)
class _Picture:
    """What says that a picture is this one, and hash and bytes of its normalised form.

    There is no hash where there is no picture or a damaged one, and there are no bytes where it is the current item's.
    It is ``stale`` where the source may have another one, which could not be fetched.
    """

    stat: str | None
    sha: str | None
    image: bytes | None
    stale: bool = False


def _status(raw: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    known = _known(raw)
    if known["text_sha"] is None and known["image_sha"] is None:
        return "new"
    if any(known[name] != item[name] for name in ("text_sha", "image_sha")):
        return "changed"
    return "unchanged" if all(known[name] == item[name] for name in KNOWN) else "refreshed"


def _known(raw: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: raw[f"known_{name}"] for name in KNOWN}


def _item_id(raw: str | None, bad_row: str | None, faults: list[dict[str, str]]) -> tuple[str, bool]:
    """The item's key, as the source spells it, and whether the row is unusable.

    A bad id is listed under one that no good row can have, so that faults are never laid to another item.
    """
    if bad_row is not None:
        faults.append(_fault(Reason.BAD_ROW, f"the line cannot be read into columns{_hint(bad_row)}: {bad_row}"))
    if raw is None or not raw.strip():
        if bad_row is None:
            faults.append(_fault(Reason.NULL_ID, "the row has no item id"))
        return "", True
    if "\0" in raw or "\ufffd" in raw:
        faults.append(_fault(Reason.BAD_ID, f"the id has a NUL, or bytes that are no UTF-8: {raw}"))
        return raw.replace("\0", "\ufffd")[:MAX_ID_BYTES], True
    if len(raw.encode()) > MAX_ID_BYTES:
        faults.append(_fault(Reason.BAD_ID, f"an item id has at most {MAX_ID_BYTES} bytes: {raw}"))
        return raw[:MAX_ID_BYTES] + "…", True
    return raw, bad_row is not None


def _hint(bad_row: str) -> str:
    """MySQL and Hive write a quote as a backslash and a quote, which CSV does not know."""
    return ' (where a quote is written \\", set escape: "\\\\" in its options)' if '\\"' in bad_row else ""


def _fault(reason: Reason, detail: str) -> dict[str, str]:
    """A fault whose detail is short and prints as one line, whatever the source holds."""
    return {"reason": reason, "detail": "".join(c if c.isprintable() else "\ufffd" for c in detail[:MAX_DETAIL])}


def _image_bytes(raw: Mapping[str, Any], source: ImageSource) -> bytes | None:
    """The raw picture: from a binary column, from Hadoop's connectors, or from a mounted file system."""
    named = "reference" in raw
    reference = raw["reference"] if named else "the picture"
    if reference is None or not reference.strip():
        return None
    if named and is_url(reference):
        why = "URLs are not fetched: name the host under catalog.image.fetch.hosts"
        why = why if len(reference) <= MAX_PATH else f"a URL has at most {MAX_PATH} characters"
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(reference)}: {why}")
    if named and source.root is None:
        detail = f"{shown(reference)} is no URL, and there is no catalog.image.root for paths"
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, detail)
    if named and source.root is not None and is_local(source.root):
        return read_image(reference, source.root, source.max_bytes)
    if raw["image"] is not None:
        return raw["image"] if named else raw["image"] or None
    if raw["image_bytes"] is not None:
        size = f"{raw['image_bytes']} bytes, allowed are {source.max_bytes}"
        raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{shown(reference)} has {size}")
    if not named:
        return None
    if raw["outside"]:
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(reference)} leads outside {source.root}")
    raise ImageFault(Reason.MISSING_IMAGE, f"there is no file {shown(reference)} under {source.root}{hint(reference)}")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _vector_sha(x_D: NDArray[np.float32] | None) -> str | None:
    return None if x_D is None else vector_sha(x_D)

"""Turn raw catalogue rows into items, one Arrow batch at a time, on Spark's Python workers.

Every row comes out: as an item with its text, picture and hashes, or rejected; and with every fault found on it.
A picture whose bytes are those of the item's live version is not decoded to find that nothing changed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config.models import Catalog, ImageSource
from pipeline.on_spark.pictures import ImageFault, normalise, read_image
from pipeline.on_spark.texts import Template, TextFault, clean, fold
from schemas.reasons import Reason

PREPROCESSING = "2"  # part of every content hash: raise it when the canonical form of text or image changes
MAX_ID_BYTES = 1024
MAX_DETAIL = 500  # characters
MAX_PATH = 4096  # characters of a reference: more than any file system takes

FAULT = pa.struct([("reason", pa.string()), ("detail", pa.string())])
PREPARED = pa.schema(
    [
        ("row", pa.int64()),
        ("item_id", pa.string()),
        ("status", pa.string()),  # new, changed, unchanged or rejected
        ("content_hash", pa.string()),
        ("text", pa.string()),
        ("image", pa.binary()),
        ("text_sha", pa.string()),
        ("image_sha", pa.string()),
        ("image_source", pa.string()),
        ("faults", pa.list_(FAULT)),
    ]
)


@dataclass(frozen=True)
class Prepare:
    """The function that Spark maps over the catalogue; its fields travel to the workers.

    Input batches have ``row``, ``item_id``, ``bad_row`` (the line, where it could not be read), of the item's live
    version ``known_hash``, ``known_image_sha`` and ``known_image_source``, ``fields`` (a struct of the template's
    columns) and, as the source has them, ``reference``, ``image`` (null where too large) and ``image_bytes`` (its
    length).
    """

    catalog: Catalog

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One batch of :data:`PREPARED` rows for every batch."""
        template = Template(self.catalog.text) if self.catalog.text else None
        for batch in batches:
            rows = [self._item_or_fault(row, template) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=PREPARED)

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
        text = self._text(raw["fields"], template, faults) if template and not rejected else None
        text_sha = _sha(text.encode()) if text else None
        picture = self._picture(raw, text_sha, faults) if self.catalog.image and not rejected else None
        if text is None and picture is None and not rejected:
            rejected = True
            if not faults:
                faults.append(_fault(Reason.EMPTY, "the item has neither text nor image"))
        content_hash = _content_hash(text_sha, picture.sha if picture else None)
        known = raw["known_hash"]
        status = "rejected" if rejected else "new" if known is None else "changed"
        item = {
            "row": raw["row"],
            "item_id": item_id,
            "status": "unchanged" if content_hash == known and not rejected else status,
            "faults": faults,
        }
        if item["status"] != "rejected":
            item["content_hash"] = content_hash
        if item["status"] in ("new", "changed"):
            item |= {"text": text, "text_sha": text_sha}
            if picture:
                item |= {"image": picture.image, "image_sha": picture.sha, "image_source": picture.source}
        return item

    def _text(self, fields: Mapping[str, str | None], template: Template, faults: list[dict[str, str]]) -> str | None:
        limit = self.catalog.max_text_chars
        try:
            return fold(template.fill({name: clean(value, limit) for name, value in fields.items()}), limit)
        except TextFault as fault:
            faults.append(_fault(Reason.BAD_TEXT, str(fault)))
            return None

    def _picture(self, raw: Mapping[str, Any], text_sha: str | None, faults: list[dict[str, str]]) -> "_Picture | None":
        bounds = self.catalog.image
        assert bounds is not None
        try:
            data = _image_bytes(raw, bounds)
            if data is None:
                return None
            source = _sha(f"{PREPROCESSING}|{bounds.size}|{bounds.max_bytes}|{bounds.max_pixels}|".encode() + data)
            known_sha = raw["known_image_sha"]
            if source == raw["known_image_source"] and _content_hash(text_sha, known_sha) == raw["known_hash"]:
                return _Picture(source, known_sha, None)
            image = normalise(data, size=bounds.size, max_bytes=bounds.max_bytes, max_pixels=bounds.max_pixels)
            return _Picture(source, _sha(image), image)
        except ImageFault as fault:
            faults.append(_fault(fault.reason, str(fault)))
            return None


@dataclass(frozen=True)
class _Picture:
    """Hash of a picture as the source has it, hash of its normalised form, and, unless the item is unchanged, that."""

    source: str
    sha: str
    image: bytes | None


def _item_id(raw: str | None, bad_row: str | None, faults: list[dict[str, str]]) -> tuple[str, bool]:
    """The item's key, as the source spells it, and whether the row is unusable.

    A bad id is listed under one that no good row can have, so that faults are never laid to another item.
    """
    if bad_row is not None:
        faults.append(_fault(Reason.BAD_ROW, f"the line cannot be read into columns: {bad_row}"))
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


def _fault(reason: Reason, detail: str) -> dict[str, str]:
    """A fault whose detail is short and prints as one line, whatever the source holds."""
    return {"reason": reason, "detail": "".join(c if c.isprintable() else "\ufffd" for c in detail[:MAX_DETAIL])}


def _image_bytes(raw: Mapping[str, Any], source: ImageSource) -> bytes | None:
    """The raw picture: from a binary column, from Hadoop's connectors, or from a mounted file system."""
    named = "reference" in raw
    reference = raw["reference"] if named else "the picture"
    if reference is None or not reference.strip():
        return None
    if named and source.root is not None and is_local(source.root):
        return read_image(reference, source.root, source.max_bytes)
    if raw["image"] is not None:
        return raw["image"] if named else raw["image"] or None
    if raw["image_bytes"] is not None:
        size = f"{raw['image_bytes']} bytes, allowed are {source.max_bytes}"
        raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{reference[:200]} has {size}")
    if not named:
        return None
    if raw["outside"]:
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{reference[:200]} leads outside {source.root}")
    raise ImageFault(Reason.MISSING_IMAGE, f"there is no file {reference[:200]} under {source.root}")


def is_local(root: str) -> bool:
    """Whether a root is a folder that every machine mounts, rather than an object store."""
    return "://" not in root or root.startswith("file://")


def _content_hash(text_sha: str | None, image_sha: str | None) -> str:
    return _sha(f"{PREPROCESSING}|{text_sha}|{image_sha}".encode())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

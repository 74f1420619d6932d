"""Every reason for which a row or one of its modalities is put into ``quarantine``: the codes that users filter by."""

from enum import StrEnum


class Reason(StrEnum):
    """A quarantine code, with what it means and what to do about it."""

    meaning: str
    remedy: str

    def __new__(cls, code: str, meaning: str, remedy: str) -> "Reason":
        """A string with two sentences."""
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.meaning, reason.remedy = meaning, remedy
        return reason

    NULL_ID = "null_id", "The row has no id, or one of white space alone.", "Give the row an id."
    BAD_ID = (
        "bad_id",
        "The id has more than 1,024 bytes, a NUL, or characters that could not be decoded.",
        "Shorten the id; write the source in UTF-8.",
    )
    DUPLICATE_ID = (
        "duplicate_id",
        "Rows share this id and differ; one of them was taken, the live version where it is among them.",
        "Keep one row an id.",
    )
    BAD_ROW = (
        "bad_row",
        "The line is no JSON, or has more or fewer values than the CSV has columns: they may stand under wrong names.",
        "Quote values that hold a separator or a line break, and write every separator.",
    )
    EMPTY = "empty", "The item has neither text nor image.", "Give it one, or drop the row."
    BAD_TEXT = (
        "bad_text",
        "More than 5 % of the text's characters could not be decoded.",
        "Write the source in UTF-8, or name its encoding in catalog.source.options.",
    )
    MISSING_IMAGE = (
        "missing_image",
        "No file that may be read lies where the reference leads, or the server says that there is none.",
        "Deliver the file, or mend the reference.",
    )
    IMAGE_NOT_ALLOWED = (
        "image_not_allowed",
        "The reference leads out of catalog.image.root, or to a host, address or scheme that is not allowed.",
        "Copy the picture under the root, or name the URL's host under catalog.image.fetch.hosts.",
    )
    FETCH_FAILED = (
        "fetch_failed",
        "The picture's server gave no picture, for what may pass; a picture that the item has stays.",
        "See that the server answers, and lets us in; every night tries again.",
    )
    IMAGE_TOO_LARGE = (
        "image_too_large",
        "The picture has more bytes, pixels or JPEG scans than are decoded.",
        "Deliver a smaller picture, or raise catalog.image.max_bytes or max_pixels.",
    )
    IMAGE_DECODE = (
        "image_decode",
        "The bytes are no picture of a known format, or a damaged one.",
        "Deliver the picture whole, as JPEG, PNG, GIF, WebP, AVIF, BMP or TIFF.",
    )
    BAD_VECTOR = (
        "bad_vector",
        "A number of the vector is missing or not finite, all are zero, or there are more or fewer than its encoder's.",
        "Mend the vector, or give its encoder another version in the configuration.",
    )
    ENCODER_FAILED = (
        "encoder_failed",
        "The encoder gave no usable vector of text or picture: it raised, or the numbers are not finite, or all zero.",
        "Mend the item or the encoder, then run encode --retry-failed.",
    )
    INTERNAL = "internal", "A bug of ours: the row tripped the program.", "Report it with the detail; the row waits."

"""What is quarantined, by reason, what to do about it, and examples with the pictures at fault, where they open."""

import io
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Config
from pipeline.errors import JobError, first_line
from pipeline.inspect.report.cards import Cards, thumbnail
from pipeline.inspect.report.subject import Subject
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import spark_delta
from pipeline.on_spark.extract import read_catalogue
from pipeline.on_spark.pictures import FORMATS, MAX_SCANS, ImageFault, is_local, is_url, read_image
from pipeline.on_spark.raw_items import raw_items
from pipeline.on_spark.sources import readable_files
from schemas.reasons import Reason
from schemas.tables import QUARANTINE

EXAMPLES = 8  # of a reason
MEANING = {reason.value: reason.meaning for reason in Reason}
REMEDY = {reason.value: reason.remedy for reason in Reason}
OF_PICTURES = (Reason.IMAGE_DECODE, Reason.IMAGE_TOO_LARGE)  # the source has bytes that the lake does not

logger = logging.getLogger(__name__)


def quarantine(spark: SparkSession, lake: Lake, config: Config, cards: Cards) -> dict[str, Any]:
    """By reason how many items, what the reason means, what to do, and examples; the most frequent first.

    The pictures at fault are read from the source as it is now; ``unread`` says why none could be.
    """
    rows = spark_delta(spark, lake, config.spark).read(QUARANTINE)
    example = F.struct("item_id", "detail", "source", F.col("seen_at").cast("string").alias("seen_at"))
    grouped = rows.groupBy("reason").agg(
        F.count("*").alias("items"),
        F.min_by(example, F.struct(F.xxhash64("item_id"), "item_id"), EXAMPLES).alias("examples"),
    )
    found = [row.asDict(recursive=True) for row in grouped.orderBy(F.desc("items"), "reason").collect()]
    faulty = sorted({e["item_id"] for each in found if each["reason"] in OF_PICTURES for e in each["examples"]})
    pictures: dict[str, int | None] = {}
    unread = None
    try:
        for item, data in _pictures(spark, config, faulty):
            if (small := opened(data, config)) is not None:
                pictures[item] = cards.keep_picture(small)
    except (JobError, PySparkException, Py4JJavaError, OSError) as error:
        unread = f"the catalogue's source could not be read for the pictures at fault: {first_line(error)}"
        logger.warning(unread)
    return {
        "items": sum(each["items"] for each in found),
        "unread": unread,
        "reasons": [
            each
            | {"meaning": MEANING[each["reason"]], "remedy": REMEDY[each["reason"]]}
            | {"examples": [_shown(e, each["reason"], pictures) for e in each["examples"]]}
            for each in found
        ],
    }


def with_cards(found: dict[str, Any], about: Subject, cards: Cards) -> None:
    """Give examples that are items all the same, without a modality or with what they had before, their cards."""
    examples = [example for reason in found["reasons"] for example in reason["examples"]]
    ids = sorted({example["item_id"] for example in examples})
    if not ids:
        return
    rows = about.current.where(F.col("item_id").isin(ids)).select("item_id", "content").collect()
    current = {row["item_id"]: row.asDict() for row in rows}
    for example in examples:
        if example["item_id"] in current:
            example["card"] = cards.card(current[example["item_id"]])


def opened(data: bytes, config: Config) -> bytes | None:
    """A thumbnail of a picture that the pipeline refused, as far as it can be decoded within the same bounds."""
    most = config.catalog.image.max_pixels if config.catalog.image else 0
    if data.count(b"\xff\xda") > MAX_SCANS:
        return None
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return thumbnail(image) if image.width * image.height <= most else None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None
    except Exception as error:  # noqa: BLE001  (a decoder fed hostile bytes may raise anything; there is no picture then)
        logger.debug("a picture in quarantine does not open: %s", first_line(error))
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _pictures(spark: SparkSession, config: Config, items: list[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes that the source has for some items, where it holds them itself or their root is a mounted folder."""
    image = config.catalog.image
    if image is None or not items:
        return
    with readable_files("catalog.source"):
        raw = raw_items(read_catalogue(spark, config), config.catalog, spark, config.encoders.vector_columns)
        columns = ["item_id", "reference" if "reference" in raw.columns else "image"]
        rows: Iterable[Any] = raw.where(F.col("item_id").isin(items)).select(*columns).collect()
        for item, picture in rows:
            if picture and not isinstance(picture, str):
                yield item, bytes(picture)
            elif picture and image.root is not None and is_local(image.root) and not is_url(picture):
                try:
                    yield item, read_image(picture, image.root, image.max_bytes)
                except ImageFault:
                    continue  # mended or gone since; its reason and detail are on the page


def _shown(example: dict[str, Any], reason: str, pictures: dict[str, int | None]) -> dict[str, Any]:
    at_fault = pictures.get(example["item_id"]) if reason in OF_PICTURES else None
    return example | {"picture": at_fault, "card": None}

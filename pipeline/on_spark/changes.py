"""Which rows of the source differ from the current items: found in the JVM, without a picture being opened."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.config.models import Catalog
from pipeline.on_spark.caching import Keep
from pipeline.on_spark.picture_stats import with_listing
from pipeline.on_spark.prepare import KNOWN, OF_URL
from pipeline.on_spark.raw_items import BY_LISTING
from pipeline.on_spark.references import is_due, is_url
from schemas.reasons import Reason

EPOCH = date(1970, 1, 1).toordinal()
LONG_AGO = -EPOCH  # in days since 1970
UNKNOWN_BYTES = 64 * 2**10  # of a picture whose size nothing says

OF_PICTURES = (
    *(Reason.MISSING_IMAGE, Reason.IMAGE_NOT_ALLOWED, Reason.FETCH_FAILED),
    *(Reason.IMAGE_TOO_LARGE, Reason.IMAGE_DECODE),
)
OF_MODALITIES = (Reason.BAD_TEXT, Reason.BAD_VECTOR, *OF_PICTURES)  # that leave an item with its other modality
KINDS = {
    "of_picture": OF_PICTURES,
    "of_text": (Reason.BAD_TEXT,),
    "of_vector": (Reason.BAD_VECTOR,),
    "of_row": tuple(reason for reason in Reason if reason not in (*OF_MODALITIES, Reason.ENCODER_FAILED)),
}

UNCHANGED = "row_hash IS NOT NULL AND NOT pending"
GONE = "row_hash IS NULL"
OF_COUNTS = ("item_id", "bytes", "pending", "named", "standing")  # that no worker needs


@dataclass(frozen=True)
class SourceTotals:
    """Of a source: its rows, those whose picture is a URL, and a digest of rows and stats, in any order: of a picture
    that has no stat it says nothing.
    """

    rows: int
    urls: int
    digest: str


@dataclass(frozen=True)
class Totals:
    """Rows of the source: all, those that go to the workers, with their bytes and how many have a picture, and
    unchanged ones whose item stands in quarantine for a modality; current items that the source lacks.
    """

    rows: int
    pending: int
    pending_bytes: int
    pending_pictures: int
    standing: int
    gone: int


@dataclass(frozen=True)
class Before:
    """What the lake knows: current items with :data:`pipeline.on_spark.prepare.KNOWN` and ``run_id``, the rows of
    ``quarantine``, the last run that came to its end: what later ones wrote, quarantine may not know yet; and when that
    one began, by its host's clock, and this one.
    """

    current: DataFrame
    quarantine: DataFrame
    finished: str
    last: datetime | None
    now: datetime

    def days(self) -> tuple[int, int]:
        """Today and the day of the last run that came to its end, in days since 1970; long ago, if its clock was ahead
        so that its day is still to come.
        """
        today, last = _day(self.now), _day(self.last) if self.last else LONG_AGO
        return today, last if last <= today else LONG_AGO


def _day(moment: datetime) -> int:
    return moment.astimezone(UTC).toordinal() - EPOCH


def with_stats(raw: DataFrame, catalog: Catalog, spark: SparkSession, keep: Keep) -> DataFrame:
    """The keys of ``raw`` with what says that a picture is the same.

    The hash of a row covers a picture that lies in the source.

    Args:
        raw: as :func:`pipeline.on_spark.raw_items.raw_items` gives it; of pictures no contents are asked for.
        catalog: the section of the configuration.
        spark: the session.
        keep: of :func:`pipeline.on_spark.caching.kept_on_disk`.

    Returns:
        ``item_id``, ``row_hash``, ``text_bytes``, ``named``, ``picture_stat``, ``image_bytes``, and those of
        ``reference`` and ``uri`` that ``raw`` has.
    """
    image, place = catalog.image, [name for name in ("reference", "uri") if name in raw.columns]
    keys = raw.select("item_id", "row_hash", "text_bytes", "named", "picture_stat", *place)
    no_length, no_stat = F.lit(None).cast("bigint"), F.lit(None).cast("string")
    if image is not None and image.changed not in BY_LISTING:
        return keep(keys.withColumn("image_bytes", no_length))  # that of a picture in the source would have it read
    if image is None or not place:
        return keep(raw.select(*keys.columns, "image_bytes"))
    if image.root is None:
        return keep(keys.withColumn("image_bytes", no_length))
    listed = with_listing(keep(keys.drop("picture_stat")), image.root, spark)
    if image.changed == "bytes":
        return keep(listed.withColumn("picture_stat", no_stat).drop("listed_stat"))
    return keep(listed.withColumnRenamed("listed_stat", "picture_stat"))


def source_totals(rows: DataFrame) -> SourceTotals:
    """Of what :func:`with_stats` gave."""
    url = is_url(F.col("reference")) if "reference" in rows.columns else F.lit(False)
    digest = F.sum(F.xxhash64("row_hash", "picture_stat").cast("decimal(20,0)"))
    found = rows.agg(
        F.count("*"), F.count_if(url), F.concat_ws("-", F.count("*").cast("string"), digest.cast("string"))
    )
    row = found.first()
    assert row is not None  # an aggregate without groups has one row
    return SourceTotals(*row)


def compare(rows: DataFrame, before: Before, catalog: Catalog, keep: Keep, *, verify_pictures: bool) -> DataFrame:
    """The keys of every row of the source beside those of its current item.

    Args:
        rows: of :func:`with_stats`.
        before: what to compare with.
        catalog: the section of the configuration.
        keep: of :func:`pipeline.on_spark.caching.kept_on_disk`.
        verify_pictures: every row that has a picture is pending.

    Returns:
        ``item_id``, ``row_hash``, ``picture_stat``, ``image_bytes``, ``uri`` if ``rows`` has it, ``bytes``, the
        ``known_…`` columns, ``pending``: whether the row must go to the workers, with all other rows of its item,
        ``named``: whether it has a picture, and ``standing``: whether the item is in quarantine for a modality. A
        current item that the source lacks is a row without ``row_hash``.
    """
    known = before.current.select("item_id", *(F.col(name).alias(f"known_{name}") for name in (*KNOWN, "run_id")))
    same = F.col("row_hash").eqNullSafe(F.col("known_row_hash")) & ~_moved(rows, before, catalog)
    if verify_pictures:
        same &= ~F.col("named")
    same &= F.col("known_run_id") <= before.finished
    same &= ~F.coalesce(F.col("conflicts") | F.col("unfetched"), F.lit(False)) & ~_has_newer_fault()
    joined = rows.join(known, on="item_id", how="full_outer").join(
        _standing(before.quarantine), on="item_id", how="left"
    )
    joined = joined.withColumn("same", F.coalesce(same, F.lit(False)))
    whole = F.bool_and("same").over(Window.partitionBy("item_id"))  # faults are found anew for an item, not for a row
    picture = F.when(F.col("named"), F.coalesce("image_bytes", F.lit(UNKNOWN_BYTES))).otherwise(0)
    return keep(
        joined.select(
            *("item_id", "row_hash", "picture_stat", "image_bytes", *(["uri"] if "uri" in rows.columns else [])),
            (F.col("text_bytes") + picture).alias("bytes"),
            *(f"known_{name}" for name in KNOWN),
            (F.col("row_hash").isNotNull() & ~whole).alias("pending"),
            F.coalesce("named", F.lit(False)).alias("named"),
            F.coalesce("standing", F.lit(False)).alias("standing"),
        )
    )


def totals(compared: DataFrame) -> Totals:
    """Counts of what :func:`compare` gave."""
    counts = compared.agg(
        F.count_if(F.col("row_hash").isNotNull()),
        F.count_if("pending"),
        F.coalesce(F.sum(F.when(F.col("pending"), F.col("bytes"))), F.lit(0)),
        F.count_if(F.col("pending") & F.col("named")),
        F.count_if(F.col("standing") & F.expr(UNCHANGED)),
        F.count_if(F.expr(GONE)),
    ).first()
    assert counts is not None  # an aggregate without groups has one row
    return Totals(*counts)


def _standing(quarantine: DataFrame) -> DataFrame:
    """Of items in quarantine: whether rows conflict, whether a picture was not fetched, whether a modality has a fault,
    the newest run by kind."""
    of_source = quarantine.where(F.col("reason") != Reason.ENCODER_FAILED.value)
    return of_source.groupBy("item_id").agg(
        F.bool_or(F.col("reason") == Reason.DUPLICATE_ID.value).alias("conflicts"),
        F.bool_or(F.col("reason") == Reason.FETCH_FAILED.value).alias("unfetched"),
        F.bool_or(F.col("reason").isin(*OF_MODALITIES)).alias("standing"),
        *(F.max(F.when(F.col("reason").isin(*of), F.col("run_id"))).alias(kind) for kind, of in KINDS.items()),
    )


def _has_newer_fault() -> Column:
    """Whether a fault is newer than the item's version: it was found on a row that is gone now, or that gave way.

    A fault of a modality that the version does not have may be the version's own, which a later night found.
    """
    lost = {"of_picture": F.col("known_image_sha").isNull(), "of_text": F.col("known_text_sha").isNull()}
    newer = ((F.col(kind) > F.col("known_run_id")) & ~lost.get(kind, F.lit(False)) for kind in KINDS)
    return reduce(Column.__or__, (F.coalesce(each, F.lit(False)) for each in newer))


def _moved(rows: DataFrame, before: Before, catalog: Catalog) -> Column:
    """Whether a picture may be another than the current item's.

    A file that a listing does not show is one that is missing, unless the current item has it. Of a URL nothing is
    known but when it is due.
    """
    image, no_stat = catalog.image, F.col("picture_stat").isNull()
    moved = ~F.col("picture_stat").eqNullSafe(F.col("known_picture_stat"))
    if image is None:
        return moved
    if image.changed not in BY_LISTING:
        return moved | (no_stat & F.col("named"))
    if "reference" not in rows.columns:  # the source holds the pictures
        return moved
    if image.changed == "bytes":
        return moved | F.col("named")
    moved |= no_stat & F.col("known_image_sha").isNotNull()
    if image.fetch is not None:
        due = is_due(F.col("reference"), image.fetch, *before.days())
        due |= ~F.coalesce(F.col("known_picture_stat").startswith(OF_URL), F.lit(False))
        moved = F.when(is_url(F.col("reference")), due).otherwise(moved)
    return moved

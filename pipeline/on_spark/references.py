"""References to pictures, as columns: what a source says of those that lie elsewhere, by paths, URIs or URLs."""

import re

from py4j.protocol import Py4JJavaError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType

from pipeline.config.models import Fetch, ImageSource
from pipeline.errors import ConfigError
from pipeline.lake.storage import spark_uri
from pipeline.on_spark.columns import named, text_column, type_of
from pipeline.on_spark.pictures import URL
from pipeline.on_spark.prepare import MAX_PATH

AUTHORITY = f"{URL}([^/?#]*)"
PORT = r":\d*$"


def reference_column(source: DataFrame, image: ImageSource) -> Column:
    """The reference of every row's picture, cut to what could be one; of a list the first that may be read.

    Raises:
        ConfigError: the column holds neither.
    """
    column, kind = named(source, image.column), type_of(source, image.column)
    if not isinstance(kind, ArrayType):
        return _cut(text_column(column, kind))
    if not isinstance(kind.elementType, StringType):
        held = kind.simpleString()
        raise ConfigError(f"catalog.image.column: {image.column!r} holds {held}: let it hold paths, URLs or bytes")
    references = F.filter(F.transform(column, lambda each: _cut(F.make_valid_utf8(each))), lambda each: each != "")
    readable = F.filter(references, lambda each: _may_be_read(each, image))
    return F.coalesce(F.get(readable, F.lit(0)), F.get(references, F.lit(0)))


def is_url(reference: Column) -> Column:
    """Whether it is asked for over http or https; of null too."""
    return F.coalesce(reference.rlike(AUTHORITY), F.lit(False))


def host_of(reference: Column) -> Column:
    """The host of a URL, whatever its port."""
    return F.regexp_replace(_authority(reference), PORT, "")


def lane_of(reference: Column, fetch: Fetch) -> Column:
    """Which of a host's lanes asks for a URL; rows of a lane must go to one task: :mod:`pipeline.on_spark.lanes`."""
    return F.pmod(F.xxhash64(reference, F.lit("lane")), F.lit(fetch.per_host)).cast("int")


def is_due(reference: Column, fetch: Fetch, today: int, last: int) -> Column:
    """Whether a URL is to be asked again: each has a day of its own in every ``recheck_days``.

    Args:
        reference: the URL.
        fetch: the section of the configuration.
        today: days since 1970.
        last: the same of the last run that came to its end; days that had no run are made up for.
    """
    if not fetch.recheck_days:
        return F.lit(True)
    own = F.pmod(F.xxhash64(reference), F.lit(fetch.recheck_days))
    rounds = [F.floor((F.lit(day) + own) / fetch.recheck_days) for day in (today, last)]
    return rounds[0] > rounds[1]


def hadoop_uri(reference: Column, root: str) -> tuple[Column, Column]:
    """A reference as Hadoop lists it under ``root``, and whether it leads elsewhere.

    ``root`` is as :func:`qualified` gives it. A path is relative to it, or absolute in its file system; a URI may name
    S3's buckets by either scheme, and leave the authority out where the root has it.
    """
    scheme, _, rest = root.partition(":")
    authority = f"//{rest[2:].partition('/')[0]}" if rest.startswith("//") else ""
    within = F.lit(f"{scheme}:{authority}/")
    uri = F.regexp_replace(reference, "^s3n?://", "s3a://")
    bare = F.regexp_extract(uri, rf"^{scheme}:(?:///|/(?!/))(.*)$", 1)
    uri = (
        F.when(bare != "", F.concat(within, bare))
        .when(uri.contains("://"), uri)
        .when(uri.startswith("/"), F.concat(within, F.ltrim(uri, F.lit("/"))))
        .otherwise(F.concat(F.lit(f"{root}/"), uri))
    )
    return uri, ~uri.startswith(f"{root}/") | uri.rlike(r"(^|/)\.\.(/|$)")


def qualified(root: str, spark: SparkSession) -> str:
    """``root`` as Hadoop spells the paths that it lists under it: with the authority that it has by default.

    Raises:
        ConfigError: no connector reaches it.
    """
    path = spark._jvm.org.apache.hadoop.fs.Path(spark_uri(root))  # type: ignore[union-attr]
    try:
        system = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())  # type: ignore[union-attr]
        return str(system.makeQualified(path).toString()).rstrip("/")
    except Py4JJavaError as error:
        raise ConfigError(
            f"catalog.image.root: {root} cannot be reached ({error.java_exception.getMessage()})"
        ) from error


def _may_be_read(reference: Column, image: ImageSource) -> Column:
    known = {re.sub(":(80|443)$", "", host) for host in image.fetch.hosts} | {*image.fetch.hosts} if image.fetch else ()
    hosts = F.array(*map(F.lit, sorted(known))) if known else F.array().cast("array<string>")
    fetched = F.array_contains(hosts, _authority(reference)) | F.array_contains(hosts, host_of(reference))
    return F.when(is_url(reference), fetched).otherwise(F.lit(image.root is not None))


def _authority(reference: Column) -> Column:
    return F.lower(F.regexp_extract(reference, AUTHORITY, 1))


def _cut(reference: Column) -> Column:
    return F.left(F.trim(reference), F.lit(MAX_PATH + 1))

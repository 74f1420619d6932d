"""What says, of a picture that is not opened, whether it is still the same: size and time of its last change.

A folder on this machine is listed by Spark's Python workers, a folder at a time; any other root by Spark itself.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from pipeline.lake.storage import spark_uri
from pipeline.on_spark.pictures import NOT_THERE, ImageFault, local_path
from pipeline.on_spark.references import is_url

FOLDER = pa.schema(
    [("folder", pa.string()), ("name", pa.string()), ("listed_stat", pa.string()), ("image_bytes", pa.int64())]
)
LISTED = 10_000  # files of a batch
PATTERN = r"[][{}*?\\]"  # what Hadoop takes for a pattern in a path, unless a backslash stands before it
FEW = 5_000  # remote pictures that are named to Spark one by one; for more it reads the whole root

Listed = tuple[str, str, str, int]


def with_listing(rows: DataFrame, root: str, spark: SparkSession) -> DataFrame:
    """``rows`` with ``listed_stat`` and ``image_bytes`` of the file that each names, null where none is seen there.

    Args:
        rows: with ``reference`` and ``named``, or with ``uri`` under a root that only Hadoop's connectors reach; read
            twice.
        root: of the pictures.
        spark: the session.
    """
    rows = rows.drop("image_bytes")
    return _remote(rows, root, spark) if "uri" in rows.columns else _local(rows, root)


def with_remote_contents(
    rows: DataFrame, wanted: DataFrame, root: str, max_bytes: int, spark: SparkSession
) -> DataFrame:
    """``rows`` with ``image``, the bytes of their ``uri``: null where there is no such file or it is too large.

    Args:
        rows: to be given their pictures.
        wanted: their listed ``uri`` and ``image_bytes``.
        root: of the pictures.
        max_bytes: of a picture.
        spark: the session.

    A few pictures are read one by one; for many of them all files under the root are.
    """
    uris = wanted.where(F.col("image_bytes") <= max_bytes).select("uri").distinct()
    few = [re.sub(PATTERN, r"\\\g<0>", row["uri"]) for row in uris.limit(FEW + 1).collect()]
    if not few:
        return rows
    reader = spark.read.format("binaryFile")
    if len(few) <= FEW:
        files = reader.load(few)
    else:
        files = reader.option("recursiveFileLookup", True).load(_hadoop(root)).where(F.col("length") <= max_bytes)
    pictures = files.select(F.col("path").alias("uri"), F.col("content").alias("image"))
    return rows.drop("image").join(pictures, on="uri", how="left")


def _local(rows: DataFrame, root: str) -> DataFrame:
    """Each folder that references name is listed once, as they name it.

    A URI with a query is not looked for: its file cannot be told from its spelling alone.
    """
    reference = F.col("reference")
    last = F.substring_index(reference, "/", -1)
    folder = F.left(reference, F.length(reference) - F.length(last))
    is_uri = reference.contains("://") | F.lower(reference).rlike("^(file|data):")
    decoded = F.try_url_decode(F.replace(last, F.lit("+"), F.lit("%2B")))
    name = F.when(~is_uri, last).when((folder != "") & ~reference.rlike("[?#]"), decoded)
    placed = rows.withColumns({"folder": folder, "name": name})
    folders = placed.where(F.col("named") & ~is_url(reference)).select("folder").distinct()
    listed = folders.mapInArrow(ListFolders(root), from_arrow_schema(FOLDER))
    return placed.join(listed, on=["folder", "name"], how="left").drop("folder", "name")


def _remote(rows: DataFrame, root: str, spark: SparkSession) -> DataFrame:
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(_hadoop(root))
    changed = F.concat_ws("-", F.col("length").cast("string"), F.unix_micros("modificationTime").cast("string"))
    listed = files.select(
        F.col("path").alias("uri"), changed.alias("listed_stat"), F.col("length").alias("image_bytes")
    )
    return rows.join(listed, on="uri", how="left")


def _hadoop(root: str) -> str:
    return spark_uri(root.rstrip("/"))


@dataclass(frozen=True)
class ListFolders:
    """The function that Spark maps over folders, each named as references name it, to list their files."""

    root: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of :data:`FOLDER`; the folder comes back as it was named."""
        for batch in batches:
            for folder in batch.column(0).to_pylist():
                files = list_pictures(folder, self.root)
                while part := list(islice(files, LISTED)):
                    yield pa.RecordBatch.from_arrays(list(map(pa.array, zip(*part, strict=True))), schema=FOLDER)


def list_pictures(folder: str, root: str) -> Iterator[Listed]:
    """Folder, name, stat and size of every file in ``folder`` that may be read: links that leave ``root`` are left out.

    Raises:
        OSError: a disk or mount fails. A folder that is not there, or that is not under ``root``, is empty.
    """
    try:
        entries = os.scandir(local_path(folder or ".", root))
    except ImageFault:
        return
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return
    with entries:
        for entry in entries:
            found = _regular_file(entry, root)
            if found is not None:
                yield folder, entry.name, f"{found.st_size}-{found.st_mtime_ns}", found.st_size


def _regular_file(entry: os.DirEntry[str], root: str) -> os.stat_result | None:
    try:
        entry.name.encode()
        if entry.is_symlink():
            local_path(entry.path, root)
        found = entry.stat()
    except (ImageFault, UnicodeEncodeError):  # leads outside, or has a name that no reference can spell
        return None
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return None
    return found if stat.S_ISREG(found.st_mode) else None

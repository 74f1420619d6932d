"""What a report is about: the IDs that a publish would release, and what readers have now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.models import Config
from pipeline.lake.artefacts import tokenizer_encoders, tokenizer_layout
from pipeline.lake.storage import Lake
from pipeline.on_spark.caching import kept_on_disk
from pipeline.on_spark.current_items import current_items
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.gate_figures import Totals, totals
from pipeline.on_spark.released_ids import candidate_rows
from pipeline.release.pointer import Release, released
from schemas.semantic_id import Layout
from schemas.tables import ITEMS, RELEASED_IDS, SEMANTIC_IDS

KEPT = ("text_sha", "image_sha", "file")  # of an item, beside the columns of released_ids


@dataclass(frozen=True)
class Subject:
    """The candidate rows under ``tokenizer`` beside the standing release. The frames are kept on disk.

    ``current`` has ``item_id``, ``content`` and :data:`KEPT` (the hashes and the file of ``items``) of every current
    item; ``rows``, the candidates, the columns of ``released_ids`` and :data:`KEPT`; ``standing`` is what readers have,
    ``None`` where nothing is released or its rows cannot be read.
    """

    lake: Lake
    config: Config
    tables: SparkDelta
    tokenizer: str
    encoders: dict[str, str]
    layout: Layout
    release: Release | None
    current: DataFrame
    rows: DataFrame
    standing: DataFrame | None
    live_items: int
    totals: Totals

    @property
    def spark(self) -> SparkSession:
        """The session of the frames."""
        return self.rows.sparkSession


@contextmanager
def subject(spark: SparkSession, lake: Lake, config: Config, tokenizer: str) -> Iterator[Subject | None]:
    """The subject of a report, while the block lasts; ``None`` where no current item has an ID under ``tokenizer``.

    Raises:
        ConfigError: the lake has no such tokenizer.
    """
    tables, release = spark_delta(spark, lake, config.spark), released(lake)
    layout, encoders = tokenizer_layout(lake, tokenizer), tokenizer_encoders(lake, tokenizer)
    with kept_on_disk() as keep:
        current = keep(current_items(tables.read(ITEMS, located=True), "content", *KEPT))
        ids = tables.read(SEMANTIC_IDS, where={"tokenizer": tokenizer})
        rows = candidate_rows(current, ids, release.version + 1 if release else 1)
        rows = keep(rows.join(current.select("item_id", *KEPT), on="item_id"))
        standing = tables.read(RELEASED_IDS) if release and lake.whole(RELEASED_IDS, _newest(lake)) else None
        found = totals(rows)
        if not found.items:
            yield None
            return
        frames = current, rows, standing
        yield Subject(lake, config, tables, tokenizer, encoders, layout, release, *frames, current.count(), found)


def sampled() -> Column:
    """What samples of :attr:`Subject.rows` are the first by: in as few files of ``items`` as will do, then by hash.

    Pictures are read by whole files, and within a file items stand in no order that means anything.
    """
    return F.struct(F.xxhash64("file"), "item_hash")


def _newest(lake: Lake) -> int:
    version = lake.version(RELEASED_IDS)
    assert version is not None  # there is a release
    return version

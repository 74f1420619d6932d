"""The raw catalogue as rows that can be compared with the items and prepared to become some."""

import json
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType

from pipeline.config.models import Catalog, ImageSource
from pipeline.errors import ConfigError
from pipeline.on_spark.columns import BAD_ROW, key_column, named, require_columns, text_column, type_of
from pipeline.on_spark.pictures import is_local
from pipeline.on_spark.prepare import MAX_DETAIL, MAX_ID_BYTES, PREPROCESSING
from pipeline.on_spark.references import hadoop_uri, lane_of, qualified, reference_column
from pipeline.on_spark.texts import Template
from pipeline.on_spark.vector_columns import Columns, hashed_settings, vector_bytes, vector_hash, vector_inputs

BY_LISTING = ("stat", "bytes")  # values of catalog.image.changed that are no column of the source
HASH_DIGITS = 32


def raw_items(source: DataFrame, catalog: Catalog, spark: SparkSession, vectors: Columns | None = None) -> DataFrame:
    """The rows of a source, as far as the configuration reads them; ``vectors`` are its columns of vectors.

    Returns:
        ``row`` (a number), ``item_id``, ``bad_row``, ``fields`` (a struct of the template's columns), ``row_hash``,
        ``text_bytes``, ``named`` (whether there is a picture), ``picture_stat`` (of the column that
        ``catalog.image.changed`` names, else null), ``image`` and ``image_bytes`` (null unless the source holds the
        picture itself), and for references ``reference``, with ``uri`` and ``outside`` where only Hadoop's connectors
        reach the root, and ``lane`` where URLs are fetched; ``text_vector`` and ``image_vector`` where they are
        columns. Columns that nobody selects are not read.

    Raises:
        ConfigError: the configuration names a column that is not there, or a root that is not mounted or not reached.
    """
    template, vectors = _template(catalog), vectors or {}
    _check_root(catalog)
    wanted = {"catalog.id": catalog.id} | {f"catalog.text {{{c}}}": c for c in template}
    if catalog.image is not None:
        wanted["catalog.image.column"] = catalog.image.column
        if catalog.image.changed not in BY_LISTING:
            wanted["catalog.image.changed"] = catalog.image.changed
    wanted |= {f"encoders.{modality}.column": settings.column for modality, settings in vectors.items()}
    _check_modalities(catalog, vectors)
    if not source.columns:
        types = dict.fromkeys(wanted.values(), "string")
        types |= {settings.column: "array<float>" for settings in vectors.values()}
        source = spark.createDataFrame([], ", ".join(f"`{column}` {kind}" for column, kind in types.items()))
    require_columns(source, wanted)
    # Values are cut here to what the workers would cut them to, so that a batch of huge ones still fits in memory.
    texts = [F.left(_text_column(source, name), F.lit(4 * catalog.max_text_chars)) for name in template]
    item_id = F.left(key_column(source, catalog.id), F.lit(MAX_ID_BYTES + 1))
    pictures, hashed = _picture_columns(source, catalog.image, spark) if catalog.image else (_no_picture(), [])
    lengths = [F.coalesce(F.octet_length(text), F.lit(0)).cast("bigint") for text in texts]
    given = vector_inputs(source, vectors)
    kinds = {modality: type_of(source, settings.column) for modality, settings in vectors.items()}
    hashed += [vector_hash(column, kinds[modality]) for modality, column in given.items()]
    lengths += [vector_bytes(column, kinds[modality]) for modality, column in given.items()]
    return source.select(
        F.monotonically_increasing_id().alias("row"),
        item_id.alias("item_id"),
        _bad_row(source).alias("bad_row"),
        (F.struct(*(t.alias(n) for t, n in zip(texts, template, strict=True))) if texts else F.lit(None)).alias(
            "fields"
        ),
        _row_hash(catalog, hashed_settings(vectors), [item_id, _bad_row(source), *texts, *hashed]).alias("row_hash"),
        sum(lengths, F.lit(0).cast("bigint")).alias("text_bytes"),
        *(value.alias(name) for name, value in pictures.items()),
        *(column.alias(f"{modality}_vector") for modality, column in given.items()),
    )


def _check_modalities(catalog: Catalog, vectors: Columns) -> None:
    if catalog.text is None and catalog.image is None and not vectors:
        raise ConfigError("catalog: text, image or a vector column must be given")
    if catalog.image is not None and "image" in vectors:
        raise ConfigError(
            f"catalog.image: encoders.image reads the vectors of column {vectors['image'].column!r}, so no picture "
            "would be used: take one of the two away"
        )


def _row_hash(catalog: Catalog, of_vectors: list[str], values: list[Column]) -> Column:
    """A hash of what the source says of an item, and of the settings that decide what becomes of it."""
    image = catalog.image
    bounds = (image.root, image.max_bytes, image.max_pixels, image.size) if image else None
    settings = json.dumps([PREPROCESSING, catalog.text, catalog.max_text_chars, bounds, *of_vectors])
    parts = (F.coalesce(F.concat(F.length(v).cast("string"), F.lit(":"), v), F.lit("-")) for v in values)
    return F.substring(F.sha2(F.concat(F.lit(settings), *parts).cast("binary"), 256), 1, HASH_DIGITS)


def _picture_columns(
    source: DataFrame, image: ImageSource, spark: SparkSession
) -> tuple[dict[str, Column], list[Column]]:
    """The columns of a picture by name, and what of them goes into the hash of the row."""
    picture, kind = named(source, image.column), type_of(source, image.column)
    columns, hashed = _no_picture(), []
    if image.changed not in BY_LISTING:
        columns["picture_stat"] = F.make_valid_utf8(named(source, image.changed).cast("string"))
        hashed = [columns["picture_stat"]]
    if isinstance(kind, BinaryType):
        columns["image"] = F.when(F.octet_length(picture) <= image.max_bytes, picture)
        columns["image_bytes"] = F.octet_length(picture).cast("bigint")
        columns["named"] = F.lit(True) if hashed else picture.isNotNull()  # the column's word is taken without a look
        return columns, hashed or [F.sha2(picture, 256)]
    if image.root is None and image.fetch is None:
        ways = "name their root folder, or under catalog.image.fetch.hosts the hosts of their URLs"
        raise ConfigError(f"catalog.image.root: column {image.column!r} holds paths, so {ways}")
    reference = reference_column(source, image)
    columns["reference"], columns["named"] = reference, F.coalesce(reference != "", F.lit(False))
    if image.root is not None and not is_local(image.root):
        uri, outside = hadoop_uri(reference, qualified(image.root, spark))
        columns |= {"outside": outside, "uri": F.when(~outside, uri)}
    if image.fetch is not None:
        columns["lane"] = lane_of(reference, image.fetch)
    return columns, [reference, *hashed]


def _no_picture() -> dict[str, Column]:
    nothing = F.lit(None)
    return {
        "named": F.lit(False),
        "picture_stat": nothing.cast("string"),
        "image": nothing.cast("binary"),
        "image_bytes": nothing.cast("bigint"),
    }


def _template(catalog: Catalog) -> list[str]:
    if catalog.text is None:
        return []
    try:
        columns = Template(catalog.text).columns
    except ValueError as error:
        raise ConfigError(f"catalog.text: {error}") from error
    if not columns:
        raise ConfigError(f"catalog.text: {catalog.text!r} names no column; the form is '{{title}}. {{brand}}'")
    return columns


def _check_root(catalog: Catalog) -> None:
    """A root that is not mounted must stop the job: it would make every item lose its picture."""
    root = catalog.image.root if catalog.image else None
    if root is not None and is_local(root) and not Path(root.removeprefix("file://")).is_dir():
        raise ConfigError(f"catalog.image.root: there is no folder {root}")


def _text_column(source: DataFrame, name: str) -> Column:
    column, kind = named(source, name), type_of(source, name)
    if isinstance(kind, ArrayType):
        return F.make_valid_utf8(F.concat_ws(", ", column.cast("array<string>")))
    return text_column(column, kind)


def _bad_row(source: DataFrame) -> Column:
    """The line, where the source could not be read into columns."""
    if BAD_ROW not in source.columns:
        return F.lit(None).cast("string")
    return F.left(F.make_valid_utf8(F.col(BAD_ROW)), F.lit(MAX_DETAIL))

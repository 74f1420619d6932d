"""Files as people have them: encodings, names, folders of parts, nested columns, ids of every type."""

import gzip
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from test_extract import catalogue, run

from pipeline.config.models import Catalog, ImageSource, Interactions, Source
from pipeline.errors import ConfigError, JobError
from pipeline.on_spark.columns import BAD_ROW, key_column
from pipeline.on_spark.interactions import read_events
from pipeline.on_spark.raw_items import raw_items
from pipeline.on_spark.sources import read_source, readable_files
from pipeline.on_spark.texts import Template

pytestmark = pytest.mark.spark

CSV = "id,title\n00042,caf\u00e9\n7,\u201cA lamp\u201d\n"


def rows(
    spark: SparkSession, path: Path, kind: str = "csv", names: list[str] | None = None, **options: Any
) -> list[Any]:
    """Ids and titles, whole rows alone."""
    options = {"header": True} | options if kind == "csv" else options
    source = Source(path=str(path), format=kind, options=options, columns=names)
    frame = read_source(spark, source, "catalog.source", ids=["id"])
    frame = frame.where(f"{BAD_ROW} IS NULL") if BAD_ROW in frame.columns else frame
    return sorted((row.id, row.title) for row in frame.select(key_column(frame, "id").alias("id"), "title").collect())


BOTH = [("00042", "caf\u00e9"), ("7", "\u201cA lamp\u201d")]


def test_every_encoding_and_packing_of_a_csv_is_read(spark: SparkSession, tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "windows-1252", "UTF-16", "UTF-16LE", "GB18030"):
        (tmp_path / encoding).write_bytes(CSV.encode(encoding))
        options = {} if encoding == "utf-8-sig" else {"encoding": encoding}
        assert rows(spark, tmp_path / encoding, **options) == BOTH, encoding
    for encoding, title in (("Shift_JIS", "\u65e5\u672c"), ("GBK", "\u4e2d\u6587")):
        (tmp_path / encoding).write_bytes(f"id,title\n1,{title}\n".encode(encoding))
        assert rows(spark, tmp_path / encoding, encoding=encoding) == [("1", title)]
    (tmp_path / "movies.dat").write_text("00042::A: lamp\n")
    assert rows(spark, tmp_path / "movies.dat", header=False, sep="::", names=["id", "title"]) == [("00042", "A: lamp")]
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert rows(spark, tmp_path / "items.csv.gz") == BOTH
    assert rows(spark, tmp_path / "items.csv.gz", inferSchema=True) == BOTH  # ids stay as they are written


def test_names_mean_nothing_but_patterns(spark: SparkSession, tmp_path: Path) -> None:
    name = "a b#c%20;100% x=\u65e5"
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.csv").write_text(CSV, encoding="utf-8")
    assert rows(spark, tmp_path / name / f"{name}.csv") == BOTH
    assert rows(spark, tmp_path / name / "*.csv") == BOTH
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "[1].csv").write_text(CSV)
    for place in (tmp_path / "parts", tmp_path / "parts" / "[1].csv"):
        with pytest.raises(ConfigError, match=r"catalog.source.path: .*parts.*for patterns: rename it"):
            rows(spark, place)


@pytest.mark.parametrize(
    ("name", "content", "kind", "options", "said"),
    [
        ("_items.csv", CSV, "csv", {}, r"catalog.source.path: .*Spark, which skips names that begin with _ or \."),
        ("none.csv", None, "csv", {}, r"catalog.source.path: .*none\.csv"),
        ("a.csv", CSV, "csv", {"encoding": "klingon"}, "catalog.source.options.encoding: .*klingon"),
        ("a.csv", CSV, "csv", {"encoding": "UTF-16", "multiLine": False}, "UTF-16 are told apart only with multiLine"),
        ("a.json", json.dumps([{"id": "1"}], indent=2), "json", {}, "catalog.source.options: .* set multiLine: true"),
        ("a.parquet", CSV, "parquet", {}, r"catalog.source.*a\.parquet"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_cannot_be_read_is_named_with_its_remedy(
    spark: SparkSession, tmp_path: Path, name: str, content: str | None, kind: str, options: dict[str, Any], said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(JobError, match=said):
        rows(spark, tmp_path / name, kind, **options)


def test_json_arrays_are_read(spark: SparkSession, tmp_path: Path) -> None:
    items = [{"id": "00042", "title": "A"}, {"id": "7", "title": "B"}]
    (tmp_path / "line.json").write_text(json.dumps(items))
    (tmp_path / "pretty.json").write_text(json.dumps(items, indent=2))
    assert rows(spark, tmp_path / "line.json", "json") == [("00042", "A"), ("7", "B")]
    assert rows(spark, tmp_path / "pretty.json", "json", multiLine=True) == [("00042", "A"), ("7", "B")]


def test_a_users_own_corrupt_record_is_a_column(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title,_corrupt_record\n1,A,x\n2,B\n")
    assert rows(spark, tmp_path / "items.csv") == [("1", "A")]


KEY = uuid.UUID("00112233-4455-4677-8899-aabbccddeeff")


def test_catalogue_and_log_know_an_item_by_the_same_id(spark: SparkSession, tmp_path: Path) -> None:
    types = {
        "decimal": (pa.array([Decimal(7)], pa.decimal128(38, 10)), "7"),
        "fraction": (pa.array([Decimal("70.250")], pa.decimal128(38, 10)), "70.25"),
        "zero": (pa.array([Decimal(0)], pa.decimal128(38, 10)), "0"),
        "hundred": (pa.array([Decimal(100)], pa.decimal128(20, 0)), "100"),
        "float": (pa.array([7.0]), "7"),
        "integer": (pa.array([7]), "7"),
        "padded": (pa.array(["0007"]), "0007"),
        "uuid": (pa.array([KEY.bytes], pa.binary(16)), KEY.hex),
        "bytes": (pa.array([KEY.bytes], pa.binary()), KEY.hex),
        "text": (pa.array([b"product-00000007"], pa.binary()), "product-00000007"),
    }
    table = pa.table({name: values for name, (values, _) in types.items()} | {"title": ["A"], "at": [1_735_700_751]})
    pq.write_table(table, tmp_path / "rows")
    source = Source(path=str(tmp_path / "rows"), format="parquet")
    frame = read_source(spark, source, "catalog.source")
    (found,) = frame.select(*(key_column(frame, name).alias(name) for name in types)).collect()
    assert found.asDict() == {name: spelled for name, (_, spelled) in types.items()}
    raw = raw_items(frame, Catalog(source=source, id="decimal", text="{title}"), spark)
    log = Interactions(source=source, user="uuid", item="decimal", time={"column": "at"}, label="true")
    (event,) = read_events(spark, log).collect()
    assert (raw.first().item_id, event.item_id, event.user_id) == ("7", "7", KEY.hex)


def test_partition_values_keep_their_zeros(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"user": ["00042"], "dept": ["002"], "item": ["a"], "at": [1_735_700_751]})
    pq.write_to_dataset(table, tmp_path / "log", partition_cols=["user", "dept"])
    source = Source(path=str(tmp_path / "log"), format="parquet")
    log = Interactions(source=source, user="user", item="dept", time={"column": "at"}, label="true")
    (event,) = read_events(spark, log).collect()
    assert (event.user_id, event.item_id) == ("00042", "002")
    raw = raw_items(
        read_source(spark, source, "catalog.source"), Catalog(source=source, id="item", text="{dept}"), spark
    )
    assert raw.first().fields.dept == "002"


def test_parts_of_another_column_order_are_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.csv").write_text("user,item,at\nu,i,1735700751\n")
    (tmp_path / "log" / "2.csv").write_text("item,user,at\ni,u,1735700751\n")
    source = Source(path=str(tmp_path / "log"), format="csv", options={"header": True})
    log = Interactions(source=source, user="user", item="item", time={"column": "at"}, label="true")
    said = r"interactions.source: .*[12]\.csv.*does not conform"
    with pytest.raises(JobError, match=said), readable_files("interactions.source"):
        read_events(spark, log).collect()


def test_nested_columns_are_named_by_dots(spark: SparkSession, tmp_path: Path) -> None:
    row = {"id": "1", "image": {"bytes": b"JPEG", "path": "a.jpg"}, "meta": {"title": "A lamp"}, "a.b": "of brass"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "items")
    source = Source(path=str(tmp_path / "items"), format="parquet")
    frame = read_source(spark, source, "catalog.source")
    template = "{meta.title} {a.b}"
    catalog = Catalog(source=source, id="id", text=template, image=ImageSource(column="image.bytes"))
    (item,) = raw_items(frame, catalog, spark).collect()
    assert Template(template).fill(item.fields.asDict()) == "A lamp of brass"
    assert (bytes(item.image), item.image_bytes) == (b"JPEG", 4)
    for column, said in (
        (
            "image",
            "column 'image' is a struct; name one value of it, as in image.field; .* id, image.bytes",
        ),
        ("image.size", "there is no column 'image.size'"),
    ):
        wrong = Catalog(source=source, id="id", image=ImageSource(column=column))
        with pytest.raises(ConfigError, match=f"catalog.image.column: {said}"):
            raw_items(frame, wrong, spark)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            'id,title\n1,"15\\" Vase"\n2,"A ""lamp"", 15\\" high"\n',
            r'none of the 2 rows .* 2 for bad_row: .*escape: "\\\\"',
        ),
        ("id,title\n1,\n2,\n3,\n", "none of the 3 rows .* 3 for empty: .*Give it one"),
    ],
)
def test_a_source_of_faults_alone_stops_the_night(spark: SparkSession, tmp_path: Path, content: str, said: str) -> None:
    source = {"path": "items.csv", "format": "csv", "options": {"header": True}}
    config = catalogue(tmp_path / "shop", [], source=source, image=None)
    (tmp_path / "shop" / "items.csv").write_text(content)
    with pytest.raises(JobError, match=f"catalog.source: {said}.*Nothing was written"):
        run(spark, config)
    assert not (tmp_path / "shop" / "lake" / "items").exists()


def test_quotes_behind_a_backslash_are_read_where_the_options_say_so(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('id,title\n1,"15\\" Vase, blue"\n')
    assert rows(spark, tmp_path / "items.csv") == []
    assert rows(spark, tmp_path / "items.csv", escape="\\") == [("1", '15" Vase, blue')]

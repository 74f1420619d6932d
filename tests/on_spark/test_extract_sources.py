"""Extraction reads the same items from every kind of source and every place of pictures."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from test_extract import catalogue, content, current, jpeg, reasons, run

from pipeline.config.file import load_config

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("kind", ["csv", pytest.param("parquet", marks=pytest.mark.slow), "delta"])
def test_every_source_gives_the_same_items(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    from deltalake import write_deltalake

    folder = tmp_path / kind
    rows = [
        {"id": "1", "title": 'A "quoted", long\ntitle', "tags": ["red", "blue"], "image": None},
        {"id": "2", "title": "Plain", "tags": [], "image": None},
    ]
    reference = catalogue(tmp_path / "json", rows, text="{title}. {tags}")
    run(spark, reference)
    config = catalogue(folder, [], text="{title}. {tags}", source={"path": "items", "format": kind} | options(kind))
    table = pa.Table.from_pylist(rows).drop_columns(["image"]).append_column("image", pa.nulls(2, pa.string()))
    if kind == "csv":
        (folder / "items").write_text('id,title,tags,image\n1,"A ""quoted"", long\ntitle","red, blue",\n2,Plain,,\n')
    elif kind == "parquet":
        pa.parquet.write_table(table, folder / "items")
    else:
        write_deltalake(str(folder / "items"), table)
    run(spark, config)
    assert {i: content(row) for i, row in current(config).items()} == {
        i: content(row) for i, row in current(reference).items()
    }


def options(kind: str) -> dict[str, object]:
    return {"options": {"header": True}} if kind == "csv" else {}


def test_pictures_from_a_column_a_folder_and_hadoop_are_the_same(spark: SparkSession, tmp_path: Path) -> None:
    mount = Path(spark.conf.get("spark.hisam.mount"))
    for folder in (tmp_path / "path", tmp_path / "bytes", mount):
        folder.mkdir(exist_ok=True)
    data = jpeg(tmp_path / "path" / "a b.jpg")
    shutil.copy(tmp_path / "path" / "a b.jpg", mount / "a b.jpg")
    (mount / "big.jpg").write_bytes(b"x" * 5000)
    row: dict[str, object] = {"id": "1", "title": "A", "image": "a b.jpg"}

    by_path = catalogue(tmp_path / "path", [row])
    by_bytes = catalogue(tmp_path / "bytes", [], source={"path": "items.parquet", "format": "parquet"})
    pa.parquet.write_table(pa.Table.from_pylist([row | {"image": data}]), tmp_path / "bytes" / "items.parquet")
    hostile = {"2": "none.jpg", "3": "../secret.jpg", "4": "viewfs://other/a.jpg", "5": "big.jpg"}
    rows = [row, *({"id": i, "title": "B", "image": reference} for i, reference in hostile.items())]
    remote = {"column": "image", "root": "viewfs://store/pictures", "max_bytes": 4000}
    catalogue(tmp_path / "hadoop", rows, image=remote)
    by_hadoop = load_config(tmp_path / "hadoop" / "hisam.yaml", ["gates.max_degraded_fraction=1"])

    hashes = []
    for config in (by_path, by_bytes, by_hadoop):
        run(spark, config)
        hashes.append(content(current(config)["1"]))
    assert len(hashes) == 3
    assert len(set(hashes)) == 1
    assert reasons(by_hadoop) == {
        "2": "missing_image",
        "3": "image_not_allowed",
        "4": "image_not_allowed",
        "5": "image_too_large",
    }

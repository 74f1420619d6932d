"""The three forms of an export, read by the programs that they are for; and what an export replaces."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.dataset as ds
import pytest
from pyspark.sql import SparkSession
from released_shop import CODES, SHOP, A, ReleasedShop
from safetensors.numpy import load_file

import pipeline.on_spark.export
from pipeline.errors import ConfigError, JobError
from pipeline.lake.run import Run
from pipeline.on_spark.export import FORMS, export

pytestmark = pytest.mark.spark

ABSENT = 8
TWICE = {"again": "content 1", "another": "content 1"}  # the codes of i1


@pytest.fixture(scope="module")
def textual_shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ReleasedShop:
    """Every third item has no picture; three items share their codes. An export writes nothing into its lake."""
    shop = ReleasedShop(spark, tmp_path_factory.mktemp("textual"))
    shop.extract(TWICE)
    codes = {item: (*each[:3], None if n % 3 == 0 else each[3]) for n, (item, each) in enumerate(CODES.items())}
    shop.identify(codes | dict.fromkeys(TWICE, codes["i1"]), dict(SHOP) | TWICE)
    assert shop.publish()
    return shop


def exported(shop: ReleasedShop, folder: Path, form: str) -> dict[str, Any]:
    """The manifest."""
    with Run("export", shop.config, writes=False) as run:
        assert export(shop.spark, run, folder, form) == folder
    assert run.counts == {"rows_out": 22}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["form"], manifest["release"], manifest["tokenizer"], manifest["rows"]) == (form, 1, A, 22)
    assert manifest["layout"] == {"shared_levels": 2, "text_levels": 1, "image_levels": 1, "codebook_size": 8}
    assert manifest["levels"] == ["shared_0", "shared_1", "text_0", "image_0"]
    return manifest


def released_codes(shop: ReleasedShop) -> dict[str, list[int]]:
    rows = shop.lake.released_ids().to_table().sort_by("item_id").to_pylist()
    return {row["item_id"]: [*row["shared"], *row["text"], *(row["image"] or [ABSENT])] for row in rows}


def test_plain_parquet_and_the_items_of_every_sid(textual_shop: ReleasedShop, tmp_path: Path) -> None:
    folder = tmp_path / "an öffentlicher 5% export"
    exported(textual_shop, folder, "parquet")
    rows = duckdb.sql(f"SELECT * FROM '{folder}/ids/*.parquet'").arrow().read_all()
    released = textual_shop.lake.released_ids().to_table()
    assert rows.to_pylist() == released.sort_by("item_id").to_pylist()
    found = duckdb.sql(f"SELECT sid, item_ids FROM '{folder}/items_by_sid/*.parquet'").fetchall()
    assert [sid for sid, _ in found] == sorted(set(released["sid"].to_pylist()))
    ids = textual_shop.ids()
    assert dict(found) == {sid: sorted(item for item in ids if ids[item] == sid) for sid in ids.values()}
    assert dict(found)[ids["i1"]] == ["again", "another", "i1"]


def test_tokens_and_their_vocabulary(textual_shop: ReleasedShop, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    manifest = exported(textual_shop, folder, "tokens")
    text = (folder / "vocabulary.json").read_bytes()
    assert manifest["vocabulary"] == {"file": "vocabulary.json", "sha256": hashlib.sha256(text).hexdigest()}
    vocabulary = json.loads(text)
    assert vocabulary["offsets"] == {"shared_0": 0, "shared_1": 9, "text_0": 18, "image_0": 27}
    assert sorted(vocabulary["tokens"].values()) == list(range(vocabulary["size"])) == list(range(36))
    rows = ds.dataset(folder / "ids").to_table().to_pylist()
    codes = released_codes(textual_shop)
    assert [row["item_id"] for row in rows] == list(codes)
    for row in rows:
        tokens = re.findall(r"<[^>]+>", row["tokens"])
        assert "".join(tokens) == row["tokens"]
        numbers = [vocabulary["tokens"][token] for token in tokens]
        assert numbers == [9 * level + code for level, code in enumerate(codes[row["item_id"]])]
    assert rows[0]["tokens"] == "<a_1><b_0><c_1><d_1>"
    assert {row["item_id"]: row["tokens"] for row in rows}["i3"] == "<a_3><b_0><c_3><d_absent>"


def test_tensors_and_their_ids(textual_shop: ReleasedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.on_spark.export, "FILE_ROWS", 9)
    folder = tmp_path / "out"
    manifest = exported(textual_shop, folder, "tensor")
    assert len(manifest["shards"]) == 3
    tensors = [load_file(folder / shard["codes"])["codes"] for shard in manifest["shards"]]
    ids = [ds.dataset(folder / shard["ids"]).to_table()["item_id"].to_pylist() for shard in manifest["shards"]]
    assert [tensor.shape for tensor in tensors] == [(4, shard["items"]) for shard in manifest["shards"]]
    assert [len(each) for each in ids] == [shard["items"] for shard in manifest["shards"]]
    codes = released_codes(textual_shop)
    assert [item for each in ids for item in each] == list(codes)
    codes_LN = np.concatenate(tensors, axis=1)
    assert codes_LN.dtype == np.int16
    assert codes_LN.T.tolist() == list(codes.values())
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "codes", "ids", "items_by_sid"}


def test_an_export_replaces_an_export_and_nothing_else(
    textual_shop: ReleasedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "out"
    for form in FORMS[::-1]:
        exported(textual_shop, folder, form)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "ids", "items_by_sid"}
    before = (folder / "manifest.json").read_bytes()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with Run("export", textual_shop.config, writes=False) as run:
        with monkeypatch.context() as patch:
            patch.setattr(pipeline.on_spark.export, "_put_in_place", dies)
            with pytest.raises(KeyboardInterrupt):
                export(textual_shop.spark, run, folder, "tokens")
        assert (folder / "manifest.json").read_bytes() == before
        assert [path.name for path in folder.parent.iterdir()] == ["out"]
        (folder / "mine.txt").write_text("precious")
        with pytest.raises(ConfigError, match=r"out holds mine\.txt, so it stays"):
            export(textual_shop.spark, run, folder, "parquet")
        (folder / "mine.txt").unlink()
        (folder / "manifest.json").unlink()
        with pytest.raises(ConfigError, match="holds no manifest of an export"):
            export(textual_shop.spark, run, folder, "parquet")
        with pytest.raises(ConfigError, match="is a file, not a folder"):
            export(textual_shop.spark, run, Path(__file__), "parquet")
        with pytest.raises(ConfigError, match="--format: 'csv' is none of parquet, tokens, tensor"):
            export(textual_shop.spark, run, tmp_path / "other", "csv")


def test_nothing_released_is_nothing_exported(shop: ReleasedShop, tmp_path: Path) -> None:
    with Run("export", shop.config, writes=False) as run, pytest.raises(JobError, match="nothing is released"):
        export(shop.spark, run, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()

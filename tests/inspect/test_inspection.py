"""What status and explain say of a small lake, against its tables read in plain Python."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from handmade import become_run, encoded, shas
from pyspark.sql import SparkSession
from released_shop import CODES, SHOP, A, ReleasedShop
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import ConfigError, JobError
from pipeline.inspect.explain import explain
from pipeline.inspect.status import status
from pipeline.lake.commit import append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_spark.purge import purge
from schemas.tables import ITEMS, QUARANTINE

pytestmark = pytest.mark.spark

COLOURS, THINGS = ["crimson", "azure", "golden", "violet"], ["teapot", "bicycle", "umbrella"]


class Shop(ReleasedShop):
    """One whose vectors are of the configured encoders."""

    def encode(self, *contents: str) -> None:
        encoded(self.lake, contents, encoder_fingerprints(self.config.encoders))

    def status(self) -> dict[str, Any]:
        return status(self.spark, self.lake, self.config)

    def waiting(self) -> tuple[int, ...]:
        """Of encode, tokenize and publish."""
        return tuple(work["items"] for work in self.status()["waiting"].values())

    def explain(self, item: str) -> dict[str, Any]:
        return explain(self.spark, self.lake, self.config, item)


@pytest.fixture(scope="module")
def shop_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(spark, tmp_path_factory.mktemp("released"))
    shop.encode(*(text for text in SHOP.values() if text))
    shop.identify(CODES)
    assert shop.publish()
    return shop


@pytest.fixture
def shop(shop_once: Shop, tmp_path: Path) -> Shop:
    return shop_once.copied_to(tmp_path)


@pytest.fixture
def file(shop: Shop, tmp_path: Path) -> str:
    """The shop's configuration as a file."""
    path = tmp_path / "hisam.yaml"
    path.write_text(yaml.safe_dump(shop.config.model_dump(mode="json", include={"lake", "catalog"}, exclude_none=True)))
    return str(path)


def hisam(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_status_and_explain_see_a_change_from_job_to_job(shop: Shop, file: str) -> None:
    assert shop.waiting() == (0, 0, 0)
    shop.extract({"i0": None, "i1": "edited", "new": "content 7", "newer": "brand new"})  # content 7 is known
    for job, rows in (("encode", "rows_out"), ("tokenize", "rows_out"), ("publish", "rows_in")):
        with Run(job, shop.config) as run, run.phase(job):
            time.sleep(0.01)
            run.count(**{rows: 5})
    found = shop.status()
    unseen = [sha for content in ("edited", "brand new") for sha in shas(content).values() if sha]
    assert found["waiting"]["encode"]["items"] == len(unseen)
    assert (found["waiting"]["tokenize"]["items"], found["waiting"]["publish"]["items"]) == (3, 2)  # i0 and i1 go
    assert all(work["seconds"] > 0 for work in found["waiting"].values())
    assert (found["live_items"], found["released"]) == (21, {"tokenizer": A, "version": 1})
    assert found["runs"]["publish"]["run_id"] == run.run_id
    items = found["tables"]["items"]
    paths = [Path(shop.lake.uri, "items", name) for name in shop.lake.files(ITEMS)]
    assert (items["rows"], items["files"]) == (24, len(paths))
    assert items["bytes"] == sum(path.stat().st_size for path in paths)
    assert json.loads(hisam("status", "--json", "-c", file))["waiting"] == found["waiting"]
    assert run.run_id in hisam("status", "-c", file)
    told = hisam("metrics", "-c", file).splitlines()
    assert {f'hisam_release{{tokenizer="{A}"}} 1.0', "hisam_released_items 20.0"} <= set(told)

    said = shop.explain("i1")
    assert said["state"] == "waits for encode; readers have its earlier version"
    assert [bool(version["vectors"]) for version in said["versions"]] == [True, False]
    assert shop.explain("i0")["state"] == "deleted, but readers have it until the next publish"
    assert shop.explain("new")["state"] == "waits for tokenize"
    shop.encode("edited", "brand new")
    assert shop.waiting() == (0, 3, 2)
    assert shop.explain("i1")["state"] == "waits for tokenize; readers have its earlier version"
    night = {"i1": "edited", "new": "content 7", "newer": "brand new"}
    shop.identify({item: (7, 6, 5, n) for n, item in enumerate(night)}, night)
    assert shop.waiting() == (0, 0, 4)
    assert shop.explain("i1")["state"] == "waits for publish; readers have its earlier version"
    assert shop.publish()
    assert shop.waiting() == (0, 0, 0)
    said = shop.explain("i1")
    assert said["state"] == "released (release 2)"
    assert [row["released"] for row in said["ids"]] == [False, True]
    assert said["ids"][0]["encoders"] == {"text": "e" * 16, "image": "f" * 16}
    assert {vector["encoder"] for vector in said["versions"][0]["vectors"]} <= set(
        encoder_fingerprints(shop.config.encoders).values()
    )
    assert shop.explain("i0")["state"] == "deleted"


def common(codes: list[int] | None, others: list[int] | None) -> int:
    """How many codes from the first on are the same."""
    pairs = list(zip(codes or (), others or (), strict=False))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))


def test_codes_in_words_are_those_of_the_items_that_share_them(spark: SparkSession, tmp_path: Path) -> None:
    shop = Shop(spark, tmp_path)
    texts = {f"p{n}": f"A {COLOURS[n % 4]} {THINGS[n % 3]} number {n}" for n in range(60)}
    codes = {item: (n % 4, n % 3, n % 5, n % 2 if n % 7 else None) for n, item in enumerate(texts)}
    shop.extract(dict.fromkeys(SHOP) | texts)
    shop.identify(codes, texts)
    assert shop.publish()
    ids = {row["item_id"]: row for row in shop.lake.released_ids().to_table().to_pylist()}
    assert ids.keys() == texts.keys()
    for item in ["p0", "p1", "p7", "p59"]:
        own, said = ids.pop(item), shop.explain(item)
        expected = {
            f"{part[0]}{'-'.join(map(str, own[part][:n]))}": {
                other for other, row in ids.items() if row[part] is not None and row[part][:n] == own[part][:n]
            }
            for part in ("shared", "text", "image")
            for n in range(1, len(own[part] or ()) + 1)
        }
        assert {row["prefix"]: row["items"] for row in said["words"]} == {p: len(s) for p, s in expected.items()}
        for row in said["words"]:
            assert len(row["examples"]) == min(3, row["items"])
            assert {example["item_id"] for example in row["examples"]} <= expected[row["prefix"]]
            assert all(example["text"] == texts[example["item_id"]] for example in row["examples"])
        words = {row["prefix"]: row["words"] for row in said["words"]}
        number = int(item[1:])
        assert words[f"s{number % 4}"] == [COLOURS[number % 4]]
        assert set(words[f"s{number % 4}-{number % 3}"]) == {COLOURS[number % 4], THINGS[number % 3]}

        def agreement(other: str, own: dict[str, Any] = own) -> tuple[int, int]:
            shared, text, image = (common(own[part], ids[other][part]) for part in ("shared", "text", "image"))
            return shared, text + image

        best = sorted(((*agreement(other), -ids[other]["item_hash"], other) for other in ids), reverse=True)[:10]
        assert [near["item_id"] for near in said["neighbours"]] == [other for n, *_, other in best if n]
        assert [near["shared_codes"] for near in said["neighbours"]] == [n for n, *_ in best if n]
        assert all(near["text"] == texts[near["item_id"]] for near in said["neighbours"])
        ids[item] = own


def test_neighbours_whose_rows_were_purged_have_no_text(shop: Shop) -> None:
    """Readers have an item as it was released until the next publish, whatever has become of its rows."""
    before = shop.explain("i0")
    shop.extract({"i8": None, "i16": "edited"})
    for erase in (["i8"], []):
        with Run("purge", shop.config) as run:
            purge(shop.spark, run, 0, erase)
    said = shop.explain("i0")
    assert {near["item_id"]: near["text"] for near in said["neighbours"]} == {"i8": None, "i16": None}
    assert [near["item_id"] for near in said["neighbours"]] == [near["item_id"] for near in before["neighbours"]]
    assert [row["items"] for row in said["words"]] == [row["items"] for row in before["words"]]
    examples = [example for row in said["words"] for example in row["examples"]]
    assert {example["item_id"]: example["text"] for example in examples} == {"i8": None, "i16": None}


def test_items_in_quarantine_and_items_never_seen(shop: Shop, file: str, tmp_path: Path) -> None:
    run_id = become_run(shop.lake)
    rows = [
        {"item_id": item, "reason": "bad_text", "detail": "torn", "source": "x", "run_id": run_id, "seen_at": 0}
        for item in ("i3", "refused")
    ]
    append(shop.lake, QUARANTINE, pa.Table.from_pylist(rows, schema=QUARANTINE.schema))
    said = shop.explain("i3")
    assert [row["reason"] for row in said["quarantine"]] == ["bad_text"]
    assert said["state"] == "released (release 1)"
    assert shop.explain("refused")["state"] == "in quarantine, and never was an item"
    assert shop.status()["quarantine"] == {"bad_text": 2}
    assert "bad_text" in hisam("explain", "refused", "-c", file)
    printed = hisam("explain", "i3", "-c", file)
    assert "s3-0.t3.i3" in printed
    assert json.loads(hisam("explain", "i3", "--json", "-c", file))["words"] == said["words"]
    with pytest.raises(ConfigError, match="has never seen an item 'p999999'"):
        shop.explain("p999999")
    with pytest.raises(JobError, match="there is no lake"):
        hisam("status", "-c", file, "--set", f"lake={tmp_path / 'typo'}")


def test_a_lake_without_a_row_has_nothing_to_do(spark: SparkSession, tmp_path: Path) -> None:
    shop = Shop(spark, tmp_path)
    empty = Lake.create(str(tmp_path / "empty"))
    found = status(spark, empty, shop.config)
    assert (found["live_items"], found["released"], found["waiting"]["encode"]["items"]) == (0, None, 0)
    unseen = [sha for content in SHOP.values() if content for sha in shas(content).values() if sha]
    assert shop.waiting() == (len(unseen), 20, 0)

"""What status and explain say of a small lake, against its tables read in plain Python."""

import json
from pathlib import Path

import pytest
from nights import run_night
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.config.models import Config
from pipeline.demo.generator import mutate
from pipeline.errors import ConfigError
from pipeline.inspect.explain import explain
from pipeline.inspect.status import status
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.encode import encode
from pipeline.on_ray.tokenize import tokenize
from pipeline.on_spark.extract import extract
from pipeline.release.releases import released, released_ids
from schemas.tables import ITEMS, QUARANTINE, SEMANTIC_IDS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("ray")]


def waiting(config: Config) -> dict[str, int]:
    return {job: work["items"] for job, work in status(config)["waiting"].items()}


def hisam(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_status_and_explain_follow_a_change_from_job_to_job(
    spark: SparkSession, nights_shop: Path, nights_config: Config
) -> None:
    config, file = nights_config, str(nights_shop / "config.yaml")
    assert waiting(config) == {"encode": 0, "tokenize": 0, "publish": 0}
    changes = mutate(nights_shop, 0.1, seed=2)
    fresh = [*changes["text_edited"], *changes["image_edited"], *changes["new"]]
    edited, gone = changes["text_edited"][0], changes["deleted"]
    with Run("extract", config) as run:
        extract(spark, run)
    # As with the catalogue's duplicates, what is new may have equal content twice; here it has not.
    assert waiting(config) == {"encode": len(fresh), "tokenize": len(fresh), "publish": len(gone)}
    found = status(config)
    assert all(work["seconds"] > 0 for work in found["waiting"].values())
    assert found["runs"]["extract"]["run_id"] == run.run_id
    assert found["runs"]["extract"]["status"] == "done"
    reasons = Lake(config.lake).read(QUARANTINE, ["reason"])["reason"].to_pylist()
    assert found["quarantine"] == {reason: reasons.count(reason) for reason in set(reasons)}
    items = found["tables"]["items"]
    paths = [Path(config.lake, "items", name) for name in Lake(config.lake).files(ITEMS, {})]
    assert (items["files"], items["bytes"]) == (len(paths), sum(path.stat().st_size for path in paths))
    assert json.loads(hisam("status", "--json", "-c", file))["waiting"] == found["waiting"]
    assert run.run_id in hisam("status", "-c", file)

    told = explain(config, edited)
    assert told["state"] == "waits for encode; readers have its earlier version"
    assert [bool(version["vectors"]) for version in told["versions"]] == [True, False]
    assert explain(config, gone[0])["state"] == "deleted, but readers have it until the next publish"
    with Run("encode", config) as run:
        encode(run)
    assert waiting(config) == {"encode": 0, "tokenize": len(fresh), "publish": len(gone)}
    assert explain(config, edited)["state"] == "waits for tokenize; readers have its earlier version"
    release = released(Lake(config.lake))
    assert release is not None
    with Run("tokenize", config) as run:
        tokenize(run, release.tokenizer)
    assert waiting(config) == {"encode": 0, "tokenize": 0, "publish": len(fresh) + len(gone)}
    assert explain(config, edited)["state"] == "waits for publish; readers have its earlier version"
    assert explain(config, changes["new"][0])["state"] == "waits for publish"

    run_night(spark, config)
    assert waiting(config) == {"encode": 0, "tokenize": 0, "publish": 0}
    told = explain(config, edited)
    assert told["state"] == "released (release 3)"
    assert [row["released"] for row in told["ids"]] == [False, True]
    assert {row["encoder"] for row in told["ids"]} == {vector["encoder"] for vector in told["versions"][0]["vectors"]}
    assert explain(config, gone[0])["state"] == "deleted"


def test_codes_in_words_are_those_of_the_items_that_share_them(nights_config: Config, nights_shop: Path) -> None:
    lake = Lake(nights_config.lake)
    release = released(lake)
    assert release is not None
    columns = ["item_id", "content_hash", "sid", "shared", "text", "image"]
    ids = {row["item_id"]: row for row in released_ids(lake, release, columns).to_pylist()}
    texts = {
        (row["item_id"], row["content_hash"]): row["text"]
        for row in lake.read(ITEMS, ["item_id", "content_hash", "text"]).to_pylist()
    }
    for item in list(ids)[:5]:
        own, told = ids.pop(item), explain(nights_config, item)
        expected = {
            f"{part[0]}{'-'.join(map(str, own[part][:n]))}": {
                other for other, row in ids.items() if row[part] is not None and row[part][:n] == own[part][:n]
            }
            for part in ("shared", "text", "image")
            for n in range(1, len(own[part] or ()) + 1)
        }
        assert {row["prefix"]: row["items"] for row in told["words"]} == {p: len(s) for p, s in expected.items()}
        for row in told["words"]:
            assert len(row["examples"]) == min(3, row["items"])
            for example in row["examples"]:
                assert example["item_id"] in expected[row["prefix"]]
                assert example["text"] == texts[example["item_id"], ids[example["item_id"]]["content_hash"]]
            sharing = [texts[other, ids[other]["content_hash"]] or "" for other in expected[row["prefix"]]]
            assert all(sum(word in text.lower() for text in sharing) >= 0.3 * len(sharing) for word in row["words"])

        def agreement(other: str, own: dict = own) -> int:
            pairs = zip(own["shared"], ids[other]["shared"], strict=True)
            return next((n for n, (a, b) in enumerate(pairs) if a != b), len(own["shared"]))

        best = sorted((agreement(other) for other in ids), reverse=True)[:10]
        assert [agreement(near["item_id"]) for near in told["neighbours"]] == [n for n in best if n]
        assert [near["shared_codes"] for near in told["neighbours"]] == [n for n in best if n]
        ids[item] = own
    assert any(row["words"] for row in told["words"])
    said = hisam("explain", item, "-c", str(nights_shop / "config.yaml"))
    assert own["sid"] in said
    printed = json.loads(hisam("explain", item, "--json", "-c", str(nights_shop / "config.yaml")))
    assert printed["words"] == told["words"]


def test_items_in_quarantine_and_items_never_seen(nights_config: Config, nights_shop: Path) -> None:
    lake = Lake(nights_config.lake)
    faults = {row["item_id"]: row["reason"] for row in lake.read(QUARANTINE, ["item_id", "reason"]).to_pylist()}
    with_ids = set(lake.read(SEMANTIC_IDS, ["item_id"])["item_id"].to_pylist())
    degraded = next(item for item in faults if item in with_ids)
    told = explain(nights_config, degraded)
    assert [row["reason"] for row in told["quarantine"]] == [faults[degraded]]
    assert told["state"] == "released (release 2)"
    assert all(row["part"] != "image" for row in told["words"])
    refused = next(item for item in faults if item not in with_ids)
    assert explain(nights_config, refused)["state"] == "in quarantine, and never was an item"
    assert faults[refused] in hisam("explain", refused, "-c", str(nights_shop / "config.yaml"))
    with pytest.raises(ConfigError, match="has never seen an item 'p999999'"):
        explain(nights_config, "p999999")

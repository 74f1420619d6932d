"""Every job of Spark's, submitted to a standalone cluster whose executor is killed: the tables of one process."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare import lake_contents
from handmade import Codes, identified, trained
from pyspark.sql import SparkSession
from spark_cluster import SparkCluster, spark_cluster

from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.demo.generator import generate, mutate
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.export import export
from pipeline.on_spark.extract import extract
from pipeline.on_spark.publish import publish
from pipeline.on_spark.purge import purge
from pipeline.on_spark.sequences import sequences
from schemas.tables import ITEMS, SEMANTIC_IDS

pytestmark = [pytest.mark.spark, pytest.mark.native_delta, pytest.mark.slow, pytest.mark.timeout(1200)]

ENCODERS = {"text": "e" * 16, "image": "f" * 16}
OPEN = {
    "max_collision_rate": 1,
    "min_perplexity": 0,
    "max_code_share": 1000,
    "max_group": 1000,
    "max_delete_fraction": 1,
}
JARS = sorted(map(str, Path(os.environ.get("HISAM_DELTA_JARS", ".")).glob("*.jar")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    with spark_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def make_shop(folder: Path) -> None:
    generate(folder, items=300, users=30, seed=0)
    file = folder / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(settings | {"gates": OPEN}))


def identify(config: Config) -> None:
    """IDs of the current items by their contents, as Ray's jobs would have made them."""
    lake = Lake.open(config.lake)
    columns = ["item_id", "run_id", "text_sha", "image_sha", "deleted"]
    newest: dict[str, dict[str, Any]] = {}
    for row in lake.read(ITEMS, columns).sort_by("run_id").to_pylist():
        newest[row["item_id"]] = row
    contents: dict[str, str | None] = {
        item: f"{row['text_sha'] or ''}|{row['image_sha'] or ''}" for item, row in newest.items() if not row["deleted"]
    }
    known = {tuple(row.values()) for row in lake.read(SEMANTIC_IDS, ["item_id", "content"]).to_pylist()}
    codes: dict[str, Codes] = {}
    for item, content in contents.items():
        if (item, named(str(content))) in known:
            continue
        a, b, c, d = hashlib.sha256(str(content).encode()).digest()[:4]
        codes[item] = (a % 8, b % 8, c % 8, d % 8)
    tokenizer = trained(lake, ENCODERS)
    identified(lake, tokenizer, codes, contents, name=named)


def named(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def in_one_process(spark: SparkSession, config: Config, job: str, to: Path) -> None:
    does = {
        "extract": lambda run: extract(spark, run),
        "publish": lambda run: publish(spark, run, trained(run.lake, ENCODERS)),
        "sequences": lambda run: sequences(spark, run),
        "purge": lambda run: purge(spark, run, older_than_days=0),
        "export": lambda run: export(spark, run, to, "parquet"),
    }
    with Run(job, config) as run:
        does[job](run)


@pytest.mark.parametrize(("first", "second"), [("embedded", "native"), ("native", "embedded")])
def test_jobs_on_a_cluster_leave_the_tables_of_one_process(
    first: str, second: str, cluster: SparkCluster, spark: SparkSession, tmp_path: Path
) -> None:
    make_shop(tmp_path / "shop")
    file = tmp_path / "shop" / "config.yaml"
    lakes = {where: load_config(file, [f"lake={tmp_path / where}"]) for where in ("cluster", "process")}

    def run(job: str, form: str, *, killed: bool = False) -> None:
        arguments = {"purge": ["--older-than-days", "0"], "export": ["--to", str(tmp_path / "exported")]}.get(job, [])
        arguments += ["-c", str(file), "--set", f"lake={tmp_path / 'cluster'}", "--set", f"spark.delta={form}"]
        said = cluster.submit(job, *arguments, jars=JARS if form == "native" else [], killing=killed)
        assert not killed or "Lost executor" in said, said
        in_one_process(spark, lakes["process"], job, tmp_path / "kept")

    run("extract", first, killed=True)
    for config in lakes.values():
        identify(config)
    run("publish", first)
    mutate(tmp_path / "shop", 0.3, seed=1)
    run("extract", second)
    for config in lakes.values():
        identify(config)
    for job in ("publish", "sequences", "purge", "export"):
        run(job, second)
    kept, on_cluster = (lake_contents(Lake.open(lakes[where].lake)) for where in ("process", "cluster"))
    assert on_cluster == kept
    assert {name for name, *_ in kept} >= {"items", "quarantine", "released_ids", "release_changes", "sequences"}

"""Catalogue, pictures, log and lake on S3, every job from extract to score: the tables of a folder, and no secret."""

import csv
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from compare import Row, lake_contents
from jars import S3_DOMAIN
from pyarrow import fs

from pipeline.demo.generator import generate
from pipeline.lake.storage import Lake

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow, pytest.mark.spark_on_s3, pytest.mark.timeout(1800)]

JARS = sorted(map(str, Path(os.environ.get("HISAM_S3_JARS", ".")).glob("*.jar")))
SETTINGS = [
    "tokenizer={shared_levels: 2, text_levels: 1, image_levels: 1, codebook_size: 8, dim: 16, hidden: 32}",
    "tokenizer.min_steps=60",
    "ranker={dim: 16, layers: 1, heads: 2, max_items: 20, epochs: 1}",
    "gates={max_collision_rate: 1, min_perplexity: 0}",
    "encoders={commit_rows: 100, workers: 1}",
    "spark.master=local[2]",
]


@pytest.fixture
def logs() -> Iterator[Path]:
    """A short path, which Ray's sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="hs", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "shop"
    generate(folder, items=150, users=25, seed=0)
    for name, source, column, given in (
        ("users", "interactions", "user", "user_id"),
        ("candidates", "items", "id", "item_id"),
    ):
        with (folder / f"{source}.csv").open(newline="") as file:
            values = sorted({row[column] for row in csv.DictReader(file)})[:20]
        (folder / f"{name}.csv").write_text("\n".join([given, *values]))
    return folder


@pytest.fixture(scope="module")
def in_a_folder(shop: Path) -> tuple[Counter[Row], list[dict[str, object]]]:
    """The rows and the scores of every job on a folder."""
    run(shop, shop / "best", shop / "output", "needle")
    return rows_of(Lake.open(str(shop / "lake"))), scores(shop / "best")


@pytest.fixture(params=["path", "virtual-hosted"])
def style(request: pytest.FixtureRequest, s3: dict[str, str], tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """How the bucket is named: a command before that of the jobs, and the options of the storage.

    Where the bucket is part of the host's name, a name that only the jobs know, there is no other host.
    """
    if request.param == "path":
        return [], s3
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()} lakes.{S3_DOMAIN}\n")
    known = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    known += ['mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    if subprocess.run([*known, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a name of a host of its own can be given to a process by root on Linux alone")
    port = s3["AWS_ENDPOINT_URL"].rpartition(":")[2]
    options = {"AWS_ENDPOINT_URL": f"http://{S3_DOMAIN}:{port}", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}
    return known, options


def run(shop: Path, to: Path, log: Path, needle: str, *settings: str, before: Sequence[str] = ()) -> list[str]:
    """Every job, in a process of its own; the command lines of all that ran meanwhile and had the needle."""
    arguments = [shop / "config.yaml", shop / "users.csv", shop / "candidates.csv", to, *SETTINGS, *settings]
    command = [*before, sys.executable, Path(__file__).with_name("every_job.py"), *arguments]
    seen = []
    with log.open("wb") as stream:
        process = subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream)
        try:
            while process.poll() is None:
                lines = (other.info["cmdline"] or [] for other in psutil.process_iter(["cmdline"]))
                seen += [" ".join(line) for line in lines if needle in " ".join(line)]
                time.sleep(0.5)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    return seen


def files_with(needle: bytes, filesystem: fs.FileSystem, folder: str) -> list[str]:
    found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    files = [info.path for info in found if info.type == fs.FileType.File]
    assert files
    return [path for path in files if needle in filesystem.open_input_file(path).read()]


def test_a_store_holds_what_a_folder_holds_and_no_secret(
    shop: Path,
    in_a_folder: tuple[Counter[Row], list[dict[str, object]]],
    style: tuple[list[str], dict[str, str]],
    logs: Path,
    tmp_path: Path,
    s3: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needle = os.environ["AWS_SECRET_ACCESS_KEY"]
    place = f"s3://lakes/{uuid.uuid4().hex}"
    store, (before, options) = Lake(f"{place}/lake", s3), style
    fs.copy_files(str(shop), f"{place.removeprefix('s3://')}/shop", destination_filesystem=store.filesystem)
    for name in ("ray", "spark"):
        (logs / name).mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(logs / "ray"))
    conf = {"spark.jars": ",".join(JARS), "spark.eventLog.enabled": True}
    conf |= {"spark.eventLog.dir": f"file://{logs / 'spark'}", "spark.eventLog.compress": False}
    settings = {"lake": f"{place}/lake", "storage_options": options, "spark.conf": conf}
    settings |= {"catalog.source.path": f"{place}/shop/items.csv", "catalog.image.root": f"{place}/shop/images"}
    settings |= {"interactions.source.path": f"{place}/shop/interactions.csv"}
    given = [f"{key}={value}" for key, value in settings.items()]
    assert run(shop, tmp_path / "stored", logs / "output", needle, *given, before=before) == []
    assert needle not in pickle.dumps(store).decode(errors="replace")
    assert files_with(needle.encode(), fs.LocalFileSystem(), str(logs)) == []
    assert files_with(needle.encode(), store.filesystem, store.path("")) == []

    expected, actual = in_a_folder[0], rows_of(store)
    assert actual == expected
    assert {name for name, *_ in actual} >= {"items", "vectors", "semantic_ids", "released_ids", "sequences", "rankers"}
    assert scores(tmp_path / "stored") == in_a_folder[1]


def rows_of(lake: Lake) -> Counter[Row]:
    """Of a missing picture a folder and a store are told in other words."""
    return Counter({row[:3] if row[0] == "quarantine" else row: n for row, n in lake_contents(lake).items()})


def scores(folder: Path) -> list[dict[str, object]]:
    rows = pq.read_table(folder / "top").sort_by([("user_id", "ascending"), ("rank", "ascending")]).to_pylist()
    assert rows
    return rows

"""Engines and a small catalogue that tests share. Engines start once a session, and only if a test asks for them."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jars import JARS_VARIABLES, S3_DOMAIN, S3_KEYS, jars_for
from pyarrow import fs
from pyspark.sql import SparkSession

from pipeline.config.file import load_config
from pipeline.config.models import RaySettings, SparkSettings
from pipeline.demo.generator import generate
from pipeline.on_ray.session import ray_session
from pipeline.on_spark.session import start_session


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without their JARs native Delta and Spark on S3 cannot run; with them they must."""
    missing = {marker: variable for marker, variable in JARS_VARIABLES.items() if not jars_for(marker)}
    for item in items:
        for marker, variable in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{variable} names no folder of JARs"))


@pytest.fixture(autouse=True)
def logging_of_its_own() -> Iterator[None]:
    """A test that runs a command line leaves no handler behind that writes to its closed stream."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for both settings of Delta: the JARs, where there are any, change nothing for the embedded one."""
    delta = jars_for("native_delta")
    jars = delta + jars_for("spark_on_s3")
    mount = tmp_path_factory.mktemp("mount")
    settings = SparkSettings(
        master="local[2]",
        delta="native" if delta else "embedded",
        conf={
            "spark.driver.memory": "2g",
            # What lives for minutes is compiled quickly rather than well, and has few cores to collect garbage on.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m "
            "-XX:+UseParallelGC -Xms2g",
            "spark.sql.shuffle.partitions": 2,
            # Nor is code made for queries of a few rows.
            "spark.sql.codegen.wholeStage": False,
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.hadoop.fs.viewfs.mounttable.store.link./pictures": f"file://{mount}",
            "spark.hadoop.fs.viewfs.mounttable.default.link./pictures": f"file://{mount}",
            "spark.hisam.mount": str(mount),
        }
        | ({"spark.jars": ",".join(jars)} if jars else {}),
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in S3_KEYS.items():  # Java sees the environment that it was started with
            environment.setenv(name, value)
        session = start_session(settings, "tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """One local cluster; no node of it is taken away, so no actor of Ray Train's need start to look out for that."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        with ray_session(RaySettings()):
            yield


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder of a small generated catalogue with its configuration."""
    folder = tmp_path / "shop"
    generate(folder, items=120, users=20, seed=0)
    return folder


@pytest.fixture
def shop_config(shop: Path):
    """The configuration of :func:`shop`, validated."""
    return load_config(shop / "config.yaml")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The storage options of a real S3 server with a bucket ``lakes``; its keys are in the environment."""
    folder = tmp_path_factory.mktemp("s3")
    parts = [f"{part}.port{grpc}" for part in ("master", "volume", "filer", "s3", "admin") for grpc in ("", ".grpc")]
    with ExitStack() as sockets:
        held = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in parts]
        ports = dict(zip(parts, (server.getsockname()[1] for server in held), strict=True))
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    command = [
        str(Path(sys.executable).with_name("weed")),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-bucket=lakes",
        f"-s3.domainName={S3_DOMAIN}",
    ]
    command += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{part}={port}" for part, port in ports.items()]
    with pytest.MonkeyPatch.context() as environment, (folder / "log").open("wb") as log:
        for name, value in S3_KEYS.items():
            environment.setenv(name, value)
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            bucket = fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1", scheme="http", request_timeout=5)
            while True:
                try:
                    bucket.get_file_info("lakes/")
                    bucket.open_output_stream("lakes/ready").close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield {"AWS_ENDPOINT_URL": endpoint}
        finally:
            server.kill()
            server.wait()

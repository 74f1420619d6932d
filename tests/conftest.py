"""Engines and a small catalogue that tests share. Engines start once a session, and only if a test asks for them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipeline.config import RaySettings, SparkSettings
from pipeline.config_file import load_config
from pipeline.demo.generator import generate
from pipeline.ray_session import ray_session
from pipeline.spark import start_session

JARS_VARIABLE = "HISAM_DELTA_JARS"


def delta_jars() -> list[str]:
    """Delta's JARs, from the folder that the environment names."""
    folder = os.environ.get(JARS_VARIABLE)
    if folder is None:
        return []
    jars = sorted(map(str, Path(folder).glob("*.jar")))
    if not jars:
        raise pytest.UsageError(f"{JARS_VARIABLE}={folder} holds no JAR")
    return jars


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without JARs native Delta cannot run; with them it must."""
    if delta_jars():
        return
    for item in items:
        if item.get_closest_marker("native_delta"):
            item.add_marker(pytest.mark.skip(reason=f"{JARS_VARIABLE} names no folder of Delta's JARs"))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for both settings of Delta: the JARs, where there are any, change nothing for the embedded one."""
    jars = delta_jars()
    mount = tmp_path_factory.mktemp("mount")
    settings = SparkSettings(
        master="local[2]",
        delta="native" if jars else "embedded",
        conf={
            "spark.driver.memory": "2g",
            "spark.sql.shuffle.partitions": 2,
            "spark.hadoop.fs.viewfs.mounttable.store.link./pictures": f"file://{mount}",
            "spark.hisam.mount": str(mount),
        }
        | ({"spark.jars": ",".join(jars)} if jars else {}),
    )
    session = start_session(settings, "tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """One local cluster."""
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

"""Shops with IDs made by hand."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from released_shop import CODES, ReleasedShop


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> ReleasedShop:
    """One with nothing released."""
    return ReleasedShop(spark, tmp_path)


@pytest.fixture(scope="session")
def released_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ReleasedShop:
    """One whose 20 items are released, to be copied."""
    shop = ReleasedShop(spark, tmp_path_factory.mktemp("released"))
    shop.identify(CODES)
    assert shop.publish()
    return shop


@pytest.fixture
def open_shop(released_once: ReleasedShop, tmp_path: Path) -> ReleasedShop:
    """One whose 20 items are released."""
    return released_once.copied_to(tmp_path)

"""Shops with IDs made by hand."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from released_shop import CODES, ReleasedShop


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> ReleasedShop:
    """One with nothing released."""
    return ReleasedShop(spark, tmp_path)


@pytest.fixture
def open_shop(shop: ReleasedShop) -> ReleasedShop:
    """One whose 20 items are released."""
    shop.identify(CODES)
    assert shop.publish()
    return shop

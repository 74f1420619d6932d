"""The shop that clusters work on."""

import pytest
from pyspark.sql import SparkSession
from shops import Jobs, Shops


@pytest.fixture(scope="session")
def shops(spark: SparkSession, ray: None, tmp_path_factory: pytest.TempPathFactory) -> Shops:
    return Shops(tmp_path_factory.mktemp("shops"), Jobs(spark))

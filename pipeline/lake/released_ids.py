"""What readers of a lake read: the IDs of the current release."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds

from pipeline.lake.storage import spark_uri
from schemas.tables import RELEASED_IDS

if TYPE_CHECKING:
    import ray.data
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.lake.storage import Lake


class ReleasedIds:
    """The rows of ``released_ids``, one a live item: a :class:`pyarrow.dataset.Dataset` with two more ways to read it.

    It stays at the release that it was opened on, whatever is published meanwhile.
    """

    def __init__(self, lake: "Lake") -> None:
        self._lake = lake
        self._version = lake.version(RELEASED_IDS)
        self.dataset: ds.Dataset = lake.dataset(RELEASED_IDS, self._version)

    def __getattr__(self, name: str) -> Any:
        """Whatever a dataset has: ``to_table``, ``scanner``, ``head``, ``count_rows``, …"""
        if name == "dataset":  # while a copy is made, which has none yet
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def spark(self, session: "SparkSession") -> "DataFrame":
        """The rows for Spark, which must reach the lake's store by itself."""
        root = spark_uri(self._lake.table_uri(RELEASED_IDS))
        files = self._lake.files(RELEASED_IDS, version=self._version)
        return session.read.parquet(*(f"{root}/{file}" for file in files))

    def ray(self) -> "ray.data.Dataset":
        """The rows for Ray Data."""
        files = self._lake.files(RELEASED_IDS, version=self._version)
        paths = [self._lake.path(f"{RELEASED_IDS.name}/{file}") for file in files]
        data = import_module("ray.data")  # nothing else here needs an engine
        return data.read_parquet(paths, filesystem=self._lake.filesystem, partitioning=None)

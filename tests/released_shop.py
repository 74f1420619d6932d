"""A lake of 20 items whose IDs are made by hand, and what happens to it."""

import json
import shutil
import uuid
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Self

import pyarrow.dataset as ds
import pytest
from handmade import Codes, Night, config_of, described, extracted, identified
from pyspark.sql import SparkSession

from pipeline.errors import GateRefused
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.publish import publish
from pipeline.release.pointer import Release, released
from pipeline.release.rollback import rollback
from schemas.tables import RELEASE_CHANGES, RELEASED_IDS, RELEASES

A, B = "a" * 16, "b" * 16
OPEN = {"max_collision_rate": 1, "min_perplexity": 0, "max_group": 1000}
SHOP: Night = {f"i{n}": f"content {n}" for n in range(20)}
CODES: dict[str, Codes] = {item: (n % 8, n // 8, n % 8, n % 8) for n, item in enumerate(SHOP)}
OTHER_CODES: dict[str, Codes] = {item: (7 - s, *rest) for item, (s, *rest) in CODES.items()}


class ReleasedShop:
    """In a folder, or in S3 given the options of a store; ``gates`` replace those that let anything through."""

    def __init__(
        self,
        spark: SparkSession,
        folder: Path,
        delta: str = "embedded",
        store: Mapping[str, str] | None = None,
        **gates: float,
    ) -> None:
        self.spark = spark
        place = {"lake": f"s3://lakes/{uuid.uuid4().hex}", "storage_options": dict(store)} if store else {}
        self.config = config_of(folder, gates=OPEN | gates, spark={"delta": delta}, **place)
        self.lake = Lake.create(self.config.lake, self.config.storage_options)
        self.extract(SHOP)
        for tokenizer in (A, B):
            described(self.lake, tokenizer)

    def copied_to(self, folder: Path, **gates: float) -> Self:
        """A shop of its own in another folder, with all that this one has but its gates."""
        shop = copy(self)
        shop.config = config_of(folder, gates=OPEN | gates, spark=self.config.spark)
        shutil.copytree(self.lake.uri, shop.config.lake)
        shop.lake = Lake.create(shop.config.lake)
        return shop

    def extract(self, night: Night) -> None:
        extracted(self.lake, night)

    def identify(self, codes: Mapping[str, Codes], night: Night = SHOP, tokenizer: str = A, **constant: Any) -> None:
        identified(self.lake, tokenizer, codes, night, **constant)

    def publish(self, tokenizer: str = A, *, force: bool = False) -> bool:
        with Run("publish", self.config, force=force) as self.run:
            return publish(self.spark, self.run, tokenizer, force=force)

    def rollback(self) -> Release:
        with Run("rollback", self.config) as self.run:
            return rollback(self.run)

    def refused(self, said: str, tokenizer: str = A) -> None:
        """Nothing but the run record changes, and the record has every figure; ``said`` is one of the faults."""
        before = released(self.lake), self.lake.version(RELEASES), self.lake.version(RELEASED_IDS)
        with pytest.raises(GateRefused, match=said):
            self.publish(tokenizer)
        assert (released(self.lake), self.lake.version(RELEASES), self.lake.version(RELEASED_IDS)) == before
        file = Path(self.lake.uri) / "runs" / self.run.run_id / "publish.json"
        record = json.loads(file.read_text())
        assert record["status"] == "refused"
        assert not all(gate["ok"] for name, gate in record["metrics"]["gates"].items() if name != "forced")

    def ids(self) -> dict[str, str]:
        """What readers see: ``sid`` by item."""
        rows = self.lake.released_ids().to_table(columns=["item_id", "sid"]).to_pylist()
        assert len({row["item_id"] for row in rows}) == len(rows)
        return {row["item_id"]: row["sid"] for row in rows}

    def gates(self) -> dict[str, Any]:
        """Of the newest row of ``releases``."""
        return json.loads(self.lake.read(RELEASES, ["version", "gates"]).sort_by("version")["gates"][-1].as_py())

    def changes(self, release: int) -> dict[str, tuple[str, str | None, str | None]]:
        """The rows of ``release_changes`` by item: change, old and new sid."""
        columns = ["item_id", "change", "old_sid", "new_sid"]
        rows = self.lake.read(RELEASE_CHANGES, columns, where=ds.field("release") == release).to_pylist()
        return {item: tuple(rest) for item, *rest in map(dict.values, rows)}

"""A lake whose nights are written by hand, to be purged."""

from pathlib import Path
from typing import Any

from handmade import Codes, Night, config_of, content_name, described, encoded, extracted, identified, shas
from pyspark.sql import SparkSession

from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.delta import SparkDelta, spark_delta
from pipeline.on_spark.plans import plan_encoding, plan_tokenizing
from pipeline.on_spark.publish import publish
from pipeline.on_spark.purge import purge
from schemas.tables import ITEMS, QUARANTINE, RELEASED_IDS, SEMANTIC_IDS, VECTORS, Table

TOKENIZER = "a" * 16
ENCODERS = {"text": "e" * 16, "image": "f" * 16}
CODES: Codes = (1, 2, 3, 4)


class Shop:
    """A lake whose nights are written by hand; ``alive`` maps its current items to their contents."""

    def __init__(self, spark: SparkSession, folder: Path, delta: str = "embedded") -> None:
        self.spark = spark
        gates = {
            "max_collision_rate": 1,
            "min_perplexity": 0,
            "max_group": 1000,
            "max_delete_fraction": 1,
            "max_row_drift": 9,
        }
        self.config = config_of(folder, gates=gates, spark={"delta": delta})
        self.lake = Lake.create(self.config.lake)
        self.alive: dict[str, str] = {}
        described(self.lake, TOKENIZER)

    @property
    def tables(self) -> SparkDelta:
        return spark_delta(self.spark, self.lake, self.config.spark)

    def night(self, night: Night) -> None:
        """What changed: its items, their vectors, as far as there are none yet, and IDs."""
        extracted(self.lake, night)
        contents = {item: content for item, content in night.items() if content is not None}
        self.alive = {item: c for item, c in (self.alive | night).items() if c is not None}
        known = set(self.column(VECTORS, "sha"))
        fresh = [c for c in dict.fromkeys(contents.values()) if shas(c)["text_sha"] not in known]
        if fresh:
            encoded(self.lake, fresh, ENCODERS)
        done = set(self.pairs(SEMANTIC_IDS, "item_id", "content"))
        codes = {item: CODES for item, c in contents.items() if (item, content_name(c)) not in done}
        if codes:
            identified(self.lake, TOKENIZER, codes, contents)

    def purge(self, days: int = 0, *erase: str) -> Run:
        with Run("purge", self.config) as run:
            purge(self.spark, run, days, erase)
        return run

    def publish(self) -> bool:
        with Run("publish", self.config) as run:
            return publish(self.spark, run, TOKENIZER)

    def to_do(self) -> tuple[int, int]:
        """Texts and pictures without a vector, and items without an ID."""
        with Run("plan", self.config) as run:
            encoding = plan_encoding(self.spark, run, ENCODERS)
            return encoding.rows, plan_tokenizing(self.spark, run, "tokenize", TOKENIZER, ENCODERS).rows

    def column(self, table: Table, name: str) -> list[Any]:
        return self.lake.read(table, [name])[name].to_pylist()

    def pairs(self, table: Table, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.lake.read(table, list(names)).to_pylist()]

    def rows(self) -> dict[str, list[str]]:
        """All rows of the tables that purge works on."""
        found = {}
        for table in (ITEMS, SEMANTIC_IDS, VECTORS, QUARANTINE, RELEASED_IDS):
            found[table.name] = sorted(map(str, self.lake.read(table, table.schema.names).to_pylist()))
        return found

    def check_whole(self) -> None:
        """Every current item has one version, an ID and its vectors, and there is nothing else."""
        assert sorted(self.pairs(ITEMS, "item_id", "text")) == sorted(self.alive.items())
        expected = sorted((item, content_name(content)) for item, content in self.alive.items())
        assert sorted(self.pairs(SEMANTIC_IDS, "item_id", "content")) == expected
        wanted = {sha for content in self.alive.values() for sha in _shas(content)}
        assert sorted(self.column(VECTORS, "sha")) == sorted(wanted)
        assert self.to_do() == (0, 0)


def _shas(content: str) -> list[str]:
    return [sha for sha in shas(content).values() if sha]

"""A lake whose columns of strings are longer than the 2 GiB that an Arrow array of strings can hold."""

from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks.lakes import config_of
from benchmarks.scale import build, measure
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.export import export
from pipeline.on_spark.session import spark_session

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ITEMS, ID_BYTES = 2_200_000, 1_000
CHANGED = ITEMS // 100


def test_planning_releasing_and_reading(tmp_path: Path) -> None:
    config = config_of(tmp_path, "4g")
    with spark_session(config.spark, "tests") as spark:
        build(spark, config, ITEMS * 5 // 4, ID_BYTES)
        found = measure(config)
        with Run("export", config) as run:
            export(spark, run, tmp_path / "tensor", "tensor")
    assert found["rows"] == {"plan encode": CHANGED, "plan tokenize": CHANGED, "publish": ITEMS}
    batches = Lake.open(config.lake).released_ids().to_batches(columns=["item_id"])
    lengths = [pc.sum(pc.binary_length(batch["item_id"])).as_py() or 0 for batch in batches]
    assert sum(lengths) == ITEMS * ID_BYTES > 2**31

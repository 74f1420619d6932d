"""Where nothing has changed since their last run, encode and tokenize end without an engine."""

from pathlib import Path

import pytest
from committed import faults
from handmade import config_of, encoded, extracted, identified, pointed_at, trained, writable
from no_spark import asks_for_spark, no_spark
from pyspark.sql import SparkSession

from jobs.encode import run_encode
from jobs.tokenize import run_tokenize
from pipeline.config.encoders import Encoders, VectorColumn
from pipeline.config.models import Config
from pipeline.lake.commit import append
from pipeline.lake.run import Run, latest
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from schemas.tables import QUARANTINE

pytestmark = pytest.mark.spark

NIGHT = {"a": "lamp", "b": "chair", "c": "table"}


def last_run() -> Run:
    run = latest()
    assert run is not None
    return run


@pytest.fixture
def config(spark: SparkSession, tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def lake(config: Config) -> Lake:
    lake = writable(config.lake)
    extracted(lake, NIGHT)
    encoded(lake, ["lamp", "chair"], encoder_fingerprints(config.encoders))
    return lake


def test_encode_plans_again_once_items_vectors_or_encoders_change(config: Config, lake: Lake) -> None:
    encoded(lake, ["table"], encoder_fingerprints(config.encoders))
    run_encode(config)
    first = last_run()
    assert "plan" in first.seconds
    with no_spark():
        for _ in range(2):
            before = last_run()
            run_encode(config)
            assert last_run().metrics["unchanged_since"] == before.run_id
    asks_for_spark(lambda: run_encode(config, retry_failed=True))
    column = VectorColumn(column="vector", name="theirs", version="1")
    asks_for_spark(lambda: run_encode(config.model_copy(update={"encoders": Encoders(text=column, image=column)})))
    extracted(lake, {"a": None})
    asks_for_spark(lambda: run_encode(config))
    run_encode(config)
    assert "unchanged_since" not in last_run().metrics
    encoded(lake, ["sofa"], encoder_fingerprints(config.encoders))
    asks_for_spark(lambda: run_encode(config))
    run_encode(config)
    append(lake, QUARANTINE, faults("a"))
    asks_for_spark(lambda: run_encode(config))


def test_tokenize_says_again_how_many_items_wait_and_plans_once_one_has_its_vectors(config: Config, lake: Lake) -> None:
    encoders = encoder_fingerprints(config.encoders)
    tokenizer = trained(lake, encoders)
    identified(lake, tokenizer, {"a": (0, 1, 2, 3), "b": (3, 2, 1, 0)}, NIGHT)
    run_tokenize(config)
    assert last_run().counts == {"rows_in": 1, "unencoded": 1}
    with no_spark():
        for named in (None, tokenizer):
            run_tokenize(config, named)
            assert last_run().counts == {"rows_in": 1, "unencoded": 1}
    record = f"runs/{last_run().run_id}/tokenize.json"
    some_got_none = {"counts": {"rows_in": 5, "rows_out": 3, "unencoded": 1}}
    lake.write_json(record, lake.read_json(record) | some_got_none)
    with no_spark():
        for _ in range(2):
            run_tokenize(config)
            assert last_run().counts == {"rows_in": 2, "unencoded": 1}
    another = trained(lake, encoders, seed=1)
    asks_for_spark(lambda: run_tokenize(config))  # nothing is released, so it is the newest that was trained
    pointed_at(lake, tokenizer)
    with no_spark():
        run_tokenize(config)
    asks_for_spark(lambda: run_tokenize(config, another))
    encoded(lake, ["table"], encoders)
    asks_for_spark(lambda: run_tokenize(config, tokenizer))

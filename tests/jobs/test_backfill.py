"""IDs under another tokenizer from stored vectors, whichever encoders are configured, and what moving would mean."""

from pathlib import Path
from typing import Any

import pytest
from handmade import config_of, encoded, extracted, identified, trained, writable
from pyspark.sql import SparkSession

from jobs.backfill import run_backfill
from jobs.planning import Halves
from jobs.tables import show_migration
from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.plans import drop_plans
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_spark.publish import publish
from pipeline.release.pointer import released
from schemas.tables import SEMANTIC_IDS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.usefixtures("spark", "ray")]

OLD, NEW = ({"text": digit * 16, "image": digit * 15 + "f"} for digit in "12")  # encoders
NIGHT = {f"i{n}": f"content {n % 50}" for n in range(60)}
OPEN = {"max_collision_rate": 1, "min_perplexity": 0, "max_code_share": 1000, "max_without_image": 1}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Configured are encoders that this machine does not have: whoever looks for them fails."""
    absent = {"model": "nobody/has-this-model"}
    return config_of(tmp_path, gates=OPEN, encoders={"text": absent, "image": absent, "commit_rows": 100})


def ids_of(lake: Lake, tokenizer: str) -> list[tuple[Any, ...]]:
    rows = lake.read(SEMANTIC_IDS, ["item_id", "content", "tokenizer", "sid", "item_hash"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows if row["tokenizer"] == tokenizer)


def test_a_backfill_needs_no_encoder_and_reports(
    spark: SparkSession, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = writable(config.lake)
    extracted(lake, NIGHT)
    encoded(lake, sorted(set(NIGHT.values())), NEW, files=2)
    first, second = trained(lake, OLD), trained(lake, NEW, seed=1, shared_levels=3)
    identified(lake, first, {item: (n % 8, n // 8, 0, None) for n, item in enumerate(NIGHT)}, NIGHT)
    run = run_backfill(config, first)
    assert run.counts == {"rows_in": 0, "unencoded": 0}
    assert "migration" not in run.metrics  # nothing is released
    with Run("publish", config) as publishing:
        assert publish(spark, publishing, first)
    before = released(lake)

    run = run_backfill(config, second)
    assert (run.counts["rows_in"], run.counts["rows_out"]) == (60, 60)
    ids = ids_of(lake, second)
    assert len(ids) == len({row[0] for row in ids}) == 60
    assert released(lake) == before
    found = run.metrics["migration"]
    assert (found["released"], found["tokenizer"], found["items"]) == (first, second, 60)
    assert [level["slot"] for level in found["levels"]] == ["shared_0", "shared_1", "text_0", "image_0"]
    assert [level["items"] for level in found["levels"]] == [60, 60, 60, 0]  # the released ones have no picture
    show_migration(found)
    said = capsys.readouterr().out
    assert all(word in said for word in (first, second, "shared_1", "60 have IDs of both"))

    again = run_backfill(config, second)
    assert again.counts == {"rows_in": 0, "unencoded": 0}
    assert ids_of(lake, second) == ids


def test_two_halves_are_one_backfill(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    lake = writable(config.lake)
    extracted(lake, NIGHT)
    encoded(lake, sorted(set(NIGHT.values())), NEW)
    tokenizer = trained(lake, NEW)
    other = run_backfill(config, trained(lake, NEW, seed=1), Halves(plan_only=True))
    overtaken = run_backfill(config, tokenizer, Halves(plan_only=True))
    planned = run_backfill(config, tokenizer, Halves(plan_only=True))
    assert lake.names("plans") == [other.run_id, planned.run_id]
    with pytest.raises(JobError, match=f"no plan {overtaken.run_id} for backfill; there are those of {other.run_id}, "):
        run_backfill(config, tokenizer, Halves(planned=overtaken.run_id))
    assert f"hisam backfill --planned {planned.run_id}" in capsys.readouterr().out
    assert not lake.exists(SEMANTIC_IDS)
    run = run_backfill(config, tokenizer, Halves(planned=planned.run_id))
    assert (run.run_id, run.counts["rows_out"]) == (planned.run_id, 60)
    assert lake.names("plans") == [other.run_id]
    drop_plans(lake)
    assert lake.names("plans") == []
    with pytest.raises(JobError, match=rf"has no plan {planned.run_id} for backfill; run backfill --plan-only first"):
        run_backfill(config, tokenizer, Halves(planned=planned.run_id))
    assert lake.read_json(f"runs/{planned.run_id}/backfill.json")["status"] == "done"


def test_vectors_that_are_missing_are_said(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    lake = writable(config.lake)
    extracted(lake, NIGHT)
    encoded(lake, ["content 0", "content 1"], OLD)
    tokenizer = trained(lake, NEW)
    with pytest.raises(
        JobError, match=rf"{tokenizer} .*{NEW['text']} \(text\).*configure those encoders and run encode"
    ):
        run_backfill(config, tokenizer)
    encoded(lake, ["content 0", "content 1"], NEW)
    run = run_backfill(config, tokenizer)
    assert (run.counts["rows_out"], run.counts["unencoded"]) == (4, 56)
    assert f"56 items have no vectors of encoders {NEW['text']}" in caplog.text

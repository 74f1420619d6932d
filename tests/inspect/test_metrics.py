"""What ``hisam metrics`` prints, read as Prometheus reads it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from handmade import config_of
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import GateRefused
from pipeline.inspect.metrics import Gauge, exposition
from pipeline.lake.commit import append
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import QUARANTINE

Samples = dict[tuple[str, ...], float]


def parsed(text: str) -> dict[str, Samples]:
    """Samples by name and by the values of their labels."""
    families = text_string_to_metric_families(text)
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples} for family in families
    }


def test_a_lake_without_anything_tells_of_its_quarantine_alone(tmp_path: Path) -> None:
    assert exposition(Lake.create(str(tmp_path / "lake")), datetime.now(UTC)) == ""


def test_the_newest_run_of_every_job_and_what_is_quarantined(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    row = {"item_id": "a", "detail": "", "source": "x", "run_id": "r", "seen_at": 0}
    for items in (5, 7):
        with Run("extract", config) as run, run.phase("compare"):
            run.count(rows_in=items)
            reasons = ["missing_image"] * items if items == 7 else []
            rows = [row | {"item_id": f"{n}", "reason": reason} for n, reason in enumerate([*reasons, "bad_vector"])]
            append(run.lake, QUARANTINE, pa.Table.from_pylist(rows, schema=QUARANTINE.schema))
    refused = Run("publish", config)
    refused.metrics["gates"] = {"min_coverage": {"figure": 0.5, "limit": 0.999, "ok": False}, "forced": False}
    with pytest.raises(GateRefused), refused:
        raise GateRefused("min_coverage")
    found = parsed(exposition(run.lake, run.started + timedelta(hours=2)))
    assert found["hisam_job_success"] == {("extract",): 1, ("publish",): 0}
    assert found["hisam_job_rows"] == {("extract", "rows_in"): 7}
    assert found["hisam_job_age_seconds"]["extract",] == pytest.approx(7200, abs=0.01)
    assert found["hisam_job_phase_seconds"].keys() == {
        (job, phase) for job in ("extract", "publish") for phase in ("lock", "rest", "compare")
    } - {("publish", "compare")}
    assert min(found["hisam_job_peak_memory_bytes"].values()) > 1e6
    assert found["hisam_gate_figure"] == {("min_coverage",): 0.5}
    assert found["hisam_gate_limit"] == {("min_coverage",): 0.999}
    assert found["hisam_quarantine_items"] == {("missing_image",): 7, ("bad_vector",): 2}
    assert "hisam_release" not in found

    file = tmp_path / "hisam.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", include={"lake", "catalog"}, exclude_none=True)))
    shown = CliRunner().invoke(app, ["metrics", "-c", str(file)], catch_exceptions=False)
    assert parsed(shown.output).keys() == found.keys()


def test_labels_may_hold_anything() -> None:
    gauge = Gauge("hisam_test", "of what")
    gauge.add(3, label='a "b"\\n\n{c="d"}')
    assert parsed("".join(f"{line}\n" for line in gauge.lines())) == {"hisam_test": {('a "b"\\n\n{c="d"}',): 3.0}}

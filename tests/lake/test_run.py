import json
import time
from pathlib import Path

import pytest

from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.run import Run, new_run_id


def config(folder: Path) -> Config:
    source = {"path": "items.csv", "format": "csv"}
    return Config.model_validate(
        {"lake": str(folder / "lake"), "catalog": {"source": source, "id": "id", "text": "{t}"}}
    )


def record(run: Run) -> dict[str, object]:
    return json.loads((Path(run.lake.uri) / "runs" / run.run_id / f"{run.job}.json").read_text())


def test_run_ids_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_run_id())
        time.sleep(0.001)
    assert ids == sorted(ids)


def test_a_record_says_what_was_done(tmp_path: Path) -> None:
    with Run("extract", config(tmp_path), tokenizer="abc") as run:
        run.count(rows_in=3, rows_out=2)
        run.count(rows_out=1)
        with run.phase("read"):
            ballast = bytearray(80_000_000)
            time.sleep(0.7)
    written = record(run)
    assert written["status"] == "done"
    assert written["arguments"] == {"tokenizer": "abc"}
    assert written["counts"] == {"rows_in": 3, "rows_out": 3}
    assert written["seconds"]["read"] >= 0.7  # type: ignore[index]
    assert written["peak_memory_bytes"] > len(ballast)  # type: ignore[operator]


@pytest.mark.parametrize("error", [JobError("no such thing"), ValueError("a bug")])
def test_a_failed_job_leaves_a_record_too(tmp_path: Path, error: Exception) -> None:
    run = Run("encode", config(tmp_path))

    def job() -> None:
        with run:
            run.count(rows_in=5)
            raise error

    with pytest.raises(type(error), match=str(error)):
        job()
    written = record(run)
    assert written["status"] == "failed"
    assert str(error) in str(written["error"])
    assert written["counts"] == {"rows_in": 5}

"""What jobs say: lines for people, JSON for machines, and secrets to neither."""

import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import config_of

from jobs.entry import start, tell
from jobs.lines import say, show, start_logging, then
from jobs.tables import show_gates
from pipeline.config.models import Gates
from pipeline.config.places import without_secrets
from pipeline.errors import ConfigError, JobError
from pipeline.lake.progress import LOG
from pipeline.lake.run import Run
from pipeline.release.gates import check

SECRET = "wJalrXUtnFEMI"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HISAM_TOKENIZER", "0123456789abcdef")
    monkeypatch.setenv("SOME_TOKEN", "no")


def job(folder: Path) -> Run:
    with Run("publish", config_of(folder)) as run:
        run.count(rows_in=2000, rows_out=0)
    tell(run, gates={})
    say("  released", run)
    show(show_gates, {}, Gates())
    then("sequences", Path("a shop/hisam.yaml"))
    return run


def test_people_read_lines_and_the_last_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = job(tmp_path)
    done, where, released, *table, last = capsys.readouterr().out.splitlines()
    assert done.startswith("publish: done in 0.")
    assert done.endswith(" s: rows_in 2,000")
    assert where == f"  {run.lake.uri}/runs/{run.run_id}/publish.json"
    assert (released, last) == ("  released", "next: hisam sequences -c 'a shop/hisam.yaml'")
    assert len(table) > 10


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(LOG, "json")
    terminated = signal.getsignal(signal.SIGTERM)
    yield
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, terminated)


@pytest.mark.usefixtures("machines")
def test_machines_read_an_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging()
    run = job(tmp_path)
    logging.getLogger("pipeline.somewhere").warning("with key %s", SECRET)
    out, err = capsys.readouterr()
    lines: list[dict[str, Any]] = [json.loads(line) for line in err.splitlines()]
    assert not out
    assert [line["level"] for line in lines] == ["info", "info", "warning"]
    assert {(line["run_id"], line["job"]) for line in lines} == {(run.run_id, "publish")}
    assert all(line["counts"] == {"rows_in": 2000, "rows_out": 0} for line in lines)
    assert lines[0]["seconds"].keys() == {"lock", "rest", "total"}
    assert [line["message"] for line in lines[1:]] == ["released", "with key (secret)"]


@pytest.mark.usefixtures("machines")
@pytest.mark.parametrize(
    ("error", "status"), [(JobError, 1), (ConfigError, 2), (KeyError, 1), (KeyboardInterrupt, 130)]
)
def test_errors_are_objects_too_and_a_mistake_of_ours_has_its_traceback(
    error: type[BaseException], status: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def failing() -> None:
        with Run("extract", config_of(tmp_path)):
            raise error(f"{SECRET} is wrong")

    with pytest.raises(SystemExit) as ended:
        start(failing)
    assert ended.value.code == status
    said = capsys.readouterr().err
    (line,) = map(json.loads, said.splitlines())
    assert (line["level"], line["job"]) == ("error", "extract")
    assert "in failing" in line["traceback"] if error is KeyError else line["exit_status"] == status
    assert SECRET not in said
    assert "(secret) is wrong" in said or error is KeyboardInterrupt


def test_secrets_are_known_by_the_names_of_what_holds_them(tmp_path: Path) -> None:
    said = f"{SECRET} 0123456789abcdef no"
    assert without_secrets(said) == "(secret) 0123456789abcdef no"
    quoted = {"DB_PASSWORD": 'a "b" \\c ü'}
    assert without_secrets(json.dumps(quoted, ensure_ascii=False), quoted) == '{"DB_PASSWORD": "(secret)"}'
    with pytest.raises(JobError), Run("extract", config_of(tmp_path)) as run:
        raise JobError(said)
    assert SECRET not in (Path(run.lake.uri) / "runs" / run.run_id / "extract.json").read_text()


def test_every_gate_has_its_line_with_figure_limit_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    gates = Gates(min_coverage=0.9)
    show_gates(check({"collision_rate": 0.0123, "coverage": 0.5}, gates) | {"forced": False}, gates)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row[1:] for row in rows if row}
    assert table["max_collision_rate"] == ["0.0123", "≤ 0.05", "holds"]
    assert table["min_coverage"] == ["0.5000", "≥ 0.9", "broken"]
    assert table["max_row_drift"] == ["–", "≤ 0.5", "not measured"]
    assert table.keys() == (Gates.model_fields.keys() - {"max_degraded_fraction"}) | {
        "items_sharing_an_id",
        "ids_moved",
    }

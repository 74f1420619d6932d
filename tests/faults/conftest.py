"""The shop that every fault befalls, and the table of what became of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from shops import FILE_ROWS, Jobs, Shops

FILES = "spark.sql.files.maxRecordsPerFile"
COLUMNS = ("job", "fault", "what the job did", "rows lost", "rows doubled", "work redone")
FOUND = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture(scope="session")
def jobs(spark: SparkSession, ray: None) -> Iterator[Jobs]:
    before = spark.conf.get(FILES)
    spark.conf.set(FILES, FILE_ROWS)
    yield Jobs(spark)
    spark.conf.set(FILES, str(before))


@pytest.fixture(scope="session")
def shops(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> Shops:
    return Shops(tmp_path_factory.mktemp("shops"), jobs)


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest) -> list[tuple[str, ...]]:
    """Rows of the table that is shown when all tests are done, see docs/reliability.md."""
    return request.config.stash.setdefault(FOUND, [])


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(FOUND, [])
    if rows:
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        terminalreporter.write_line("\n".join(f"| {' | '.join(line)} |" for line in lines))

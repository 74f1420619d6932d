"""A lake in a folder that tests may write to."""

from pathlib import Path

import pytest
from writing import as_writer

from pipeline.lake.storage import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return as_writer(Lake.create(str(tmp_path / "my l\u00e4ke")))

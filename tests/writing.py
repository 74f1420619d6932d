"""Tests write to a lake as the run that holds its lock does."""

from pipeline.lake.commit import Writer
from pipeline.lake.run import new_run_id
from pipeline.lake.storage import Lake


def as_writer(lake: Lake, run_id: str | None = None) -> Lake:
    """``lake`` as a job has it that holds its lock; a new run, unless an id is given."""
    lake.writer = Writer("test", run_id or new_run_id(lake), lambda: None)
    return lake

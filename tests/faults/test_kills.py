"""A job is killed at an instant and run again: the lake ends as if nothing had happened."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from compare import contents
from kills import KILLS, Kill
from shops import Ended, Jobs, Shops, config_of, run_process

from pipeline.lake.storage import Lake
from schemas.tables import SEMANTIC_IDS, VECTORS, Table

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow]

CHUNKED = {"encode": VECTORS, "tokenize": SEMANTIC_IDS, "backfill": SEMANTIC_IDS}


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.id)
def test_a_killed_job_run_again_leaves_what_an_undisturbed_one_leaves(
    kill: Kill, shops: Shops, jobs: Jobs, tmp_path: Path, scratch: Path, found: list[tuple[str, ...]]
) -> None:
    before, after = shops.before(kill.job), shops.after(kill.job)
    folder = shutil.copytree(before, tmp_path / "shop")
    expected = contents(after)
    ended = run_process(kill.job, folder, scratch, kill.fault)
    did = what_it_did(ended, kill.fault.victim)
    between = contents(folder)
    committed = rows_of(folder, CHUNKED[kill.job]) - rows_of(before, CHUNKED[kill.job]) if kill.job in CHUNKED else 0
    told: list[float] = []
    runs = jobs(kill.job, folder, told)
    actual = contents(folder)
    lost, doubled = expected - actual, actual - expected
    redone = "0"
    if kill.job in CHUNKED:
        steps = commits(before, after, CHUNKED[kill.job])
        begun = sum(steps[: kill.chunk or 0])
        done_again = max(0, begun - committed)
        assert done_again in (
            0,
            steps[min(kill.chunk or 1, len(steps)) - 1],
        )  # at most the chunk that was being worked on
        assert (
            runs[kill.job].counts.get("rows_out", 0) == sum(steps) - committed
        )  # what was committed is not done again
        redone = f"{done_again} of {sum(steps)} rows"
    elif kill.job.startswith("train"):
        redone = f"{len([done for done in told if done == int(done)])} epochs"
        assert not told or kill.fault.victim != "driver"  # these drivers die when all epochs are done
    found.append((kill.job, kill.name, did, str(lost.total()), str(doubled.total()), redone))
    assert not lost
    assert not doubled
    assert set(between) <= set(expected) | set(contents(before))  # nothing that a reader might trip over


def what_it_did(ended: Ended, victim: str) -> str:
    """What the job's process did; a job that fails says so in one line, and never shows a traceback."""
    if victim == "driver":
        assert ended.status == -9, ended.output
        return "died"
    assert ended.status in (0, 1), ended.output
    assert "Traceback" not in ended.output
    if ended.status == 0:
        return "went on"
    assert ended.output.splitlines()[-1].startswith("hisam: "), ended.output
    return "failed, exit status 1"


def commits(before: Path, after: Path, table: Table) -> Sequence[int]:
    """Rows of each commit that a job made to a table, in order."""
    lake, start = Lake(config_of(after).lake), Lake(config_of(before).lake).version(table)
    versions = range((start or 0) + 1, (lake.version(table) or 0) + 1)
    rows = [lake.delta(table, version).count() for version in versions]
    return [more for more in np.diff([rows_of(before, table), *rows]).tolist() if more]


def rows_of(folder: Path, table: Table) -> int:
    return Lake(config_of(folder).lake).read(table, table.key).num_rows

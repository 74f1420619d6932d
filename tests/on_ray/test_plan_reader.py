"""How the rows of a plan come to the workers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.lake.storage import Lake
from pipeline.on_ray.plan_reader import read_parts
from pipeline.on_ray.pools import at_first, block_rows
from pipeline.on_ray.session import share_of_node, workers_on

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


def test_the_rows_of_one_part_are_work_for_many_workers(tmp_path: Path) -> None:
    def read(lake: Lake, part: str) -> Iterator[pa.Table]:  # a function of a function travels to the workers whole
        for batch in range(10):
            yield pa.table({"row": [f"{part}{batch}-{n}" for n in range(16)]})

    rows = read_parts(Lake(str(tmp_path)), ["a"], read, 32)
    sizes = rows.map_batches(lambda block: {"size": [len(block["row"])]}, batch_size=None)
    assert [row["size"] for row in sizes.take_all()] == [32] * 5


@pytest.mark.parametrize(("rows", "workers", "expected"), [(10, 1, 64), (640, 2, 64), (2560, 4, 128), (10**6, 2, 1024)])
def test_blocks_are_whole_batches_a_few_for_each_worker(rows: int, workers: int, expected: int) -> None:
    assert block_rows(rows, 64, workers) == expected


def test_workers_share_the_cores_of_their_own_node() -> None:
    room = {"small": 4.0, "large": 12.0, "head": 0.0}
    assert [workers_on(node, 15, room) for node in room] == [4, 12, 1]
    assert [workers_on(node, 2, room) for node in room] == [1, 2, 1]
    assert share_of_node(1) == len(os.sched_getaffinity(0))
    assert at_first(7) == 7  # of one node

"""Tasks and actors do the same work, and tasks share what their process has made."""

import os
import sys

import pyarrow as pa
import pytest
import ray

from pipeline.on_ray import pools
from pipeline.on_ray.pools import Pool, Stage, pool_for

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers import nothing from the tests' folder


class Numbered:
    """Says how many were made in its process."""

    def __init__(self, plus: int) -> None:
        os.environ["MADE"] = str(int(os.environ.get("MADE", "0")) + 1)
        self._plus = plus

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = len(block)
        row = [n + self._plus for n in block["id"].to_pylist()]
        return pa.table({"row": row, "made": [int(os.environ["MADE"])] * rows})


def mapped(pool: Pool, stage: Stage) -> pa.Table:
    inputs = ray.data.from_arrow([pa.table({"id": [3 * block + n for n in range(3)]}) for block in range(4)])
    return pa.concat_tables(ray.get(pool.map(inputs, stage, 3).to_arrow_refs()))


def test_tasks_make_their_stage_once_a_process_for_all_of_a_job() -> None:
    stage, pool = Stage(Numbered, (100,)), Pool(1, on_gpu=False, few=True)
    for _ in range(4):
        rows = mapped(pool, stage)
        assert sorted(rows["row"].to_pylist()) == list(range(100, 112))
        assert set(rows["made"].to_pylist()) == {1}
    other = mapped(pool, Stage(Numbered, (200,)))
    assert sorted(other["row"].to_pylist()) == list(range(200, 212))


def test_actors_do_the_same() -> None:
    rows = mapped(Pool(1, on_gpu=False), Stage(Numbered, (100,)))
    assert sorted(rows["row"].to_pylist()) == list(range(100, 112))


def test_a_process_keeps_the_last_stages_alone() -> None:
    block, stages = pa.table({"id": [0]}), [Stage(Numbered, (n,)) for n in range(3)]
    assert [stage(block)["row"].to_pylist() for stage in [*stages, stages[1], stages[0]]] == [[0], [1], [2], [1], [0]]
    assert pools._made.cache_info().currsize == pools.KEPT


@pytest.mark.parametrize(
    ("batches", "workers", "few"), [(1, 1, True), (64, 1, True), (65, 1, False), (10_000, None, False)]
)
def test_few_blocks_are_tasks(batches: int, workers: int | None, few: bool) -> None:
    pool = pool_for(batches, 1, workers, on_gpu=False)
    assert pool.few == few
    assert pool.workers <= batches

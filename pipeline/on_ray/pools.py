"""What maps the blocks of a dataset: actors, or, where there is little to do on this machine alone, tasks.

An actor has its next block at hand when it is done with one, but starts in seconds, and its process ends with its pool.
A task waits a fifth of a second for Ray Data, but Ray keeps its process, with all that it has imported and loaded, for
the next one, be that of the next modality or job. On a cluster that was joined tasks would be put on its nodes in turn,
however few cores a node has, and a GPU needs one process that alone holds it.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.on_ray.session import gpus, room_of_nodes, started_here

KEPT = 2  # of what a process has made: the models of a job's two modalities, or its two stages
MOST_BATCHES = 16  # of a block
BLOCKS = 4  # for each worker, where they are no larger than that
# Of a core, what a task says that it takes. Ray Data keeps CPUs for every operation of a pipeline, busy or not, so that
# a fourth of them is what one is sure to have; how many tasks there are at once is the pool's size.
CLAIM = 0.25


@dataclass(frozen=True)
class Stage:
    """A class whose objects map Arrow tables, and what to make one of, once in every process that works.

    Stages of one ``kind`` and ``name`` share it: those of a job's chunks.
    """

    kind: type
    args: tuple[Any, ...] = field(compare=False)
    name: str = field(default_factory=lambda: uuid4().hex)

    @property
    def __name__(self) -> str:
        """Of the operation, in messages of Ray Data."""
        return self.kind.__name__

    def __call__(self, block: pa.Table) -> pa.Table:
        """What this process's object makes of a block."""
        mapped: pa.Table = _made(self)(block)
        return mapped


@lru_cache(maxsize=KEPT)
def _made(stage: Stage) -> Any:
    return stage.kind(*stage.args)


@dataclass(frozen=True)
class Pool:
    """So many workers at most, with a GPU or a core each or a ``share`` of one; ``few`` blocks come to each."""

    workers: int
    on_gpu: bool
    share: float = 1
    few: bool = False

    def map(self, rows: Dataset, stage: Stage, batch_size: int | None = None, calls: int = 1) -> Dataset:
        """``rows`` through ``stage``, whole blocks or so many rows at once; an actor may have so many ``calls``."""
        batches: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": batch_size}
        if self.few and not self.on_gpu and started_here():
            tasks = TaskPoolStrategy(min(self.workers, spare_cores()))
            called = partial(stage)  # which Ray Data names as the stage, and an object as its class
            return rows.map_batches(called, compute=tasks, num_cpus=self.share * CLAIM, **batches)
        needs = {"num_gpus": self.share} if self.on_gpu else {"num_cpus": self.share}
        actors = _shrinking(self.workers, gpus() if self.on_gpu else at_first(spare_cores()), calls)
        return rows.map_batches(stage.kind, fn_constructor_args=stage.args, compute=actors, **needs, **batches)


def pool_for(
    rows: int,
    batch: int,
    workers: int | None = None,
    *,
    most: int = MOST_BATCHES,
    on_gpu: bool = True,
    share: float = 1,
) -> Pool:
    """Who maps so many rows in batches of ``batch``: so many workers, or one a GPU, or one a core of
    :func:`spare_cores`.

    Never more than batches, so that a small night does not load a model many times over. Where ``workers`` are more
    than a joined cluster has room for, the pool grows with the cluster. ``most``: batches of a block.
    """
    batches, on_gpu = -(-rows // batch), on_gpu and gpus() > 0
    pool = max(1, min(workers or (gpus() if on_gpu else spare_cores()), batches))
    return Pool(pool, on_gpu, share, few=batches <= BLOCKS * most * pool)


def spare_cores() -> int:
    """Cores of the cluster but one, which is left for reading."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)


def block_rows(rows: int, batch: int, workers: int, most: int = MOST_BATCHES) -> int:
    """Rows of a block, whole batches: each worker gets about :data:`BLOCKS`, and none has more than ``most``."""
    return batch * max(1, min(most, rows // (BLOCKS * batch * workers)))


def _shrinking(actors: int, first: int, calls: int) -> ActorPoolStrategy:
    """A pool of at most so many actors, at ``first`` so many, which lets idle ones go. Each has so many ``calls`` at
    once.

    One of a fixed size would hang when a node is lost: its dead actors start again on the cores of the other nodes,
    those that read find none, and idle actors keep theirs while they wait for what was to be read.
    """
    return ActorPoolStrategy(
        min_size=1, max_size=actors, initial_size=max(1, min(actors, first)), max_concurrent_calls_per_actor=calls
    )


def at_first(actors: int) -> int:
    """With how many of so many actors on cores a pool begins: one where a node may be lost.

    A pool lets no actor go before it was given something, so one that took every core would keep the cores that what
    was being read on the lost node has to be read on. The others start with the first input.
    """
    return actors if sum(cores > 0 for cores in room_of_nodes("CPU").values()) == 1 else 1

"""How many rows Ray Data's workers have given back in this process, as its executions go on."""

from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.data._internal.execution.operators.task_pool_map_operator import TaskPoolMapOperator

from pipeline.lake.progress import Done, Probe


class RowsDone(ExecutionCallback):
    """Looks at every step of an execution; Ray Data makes one of these for each, so the counts are the class's own.

    Counted is what comes out of the last :class:`~pipeline.on_ray.pools.Pool`, which does a job's work: of reading and
    writing beside it there may be more.
    """

    before = 0
    now = 0

    def on_execution_step(self, executor: Any) -> None:
        """Look."""
        pools = [operator for operator in executor._topology if _is_pool(operator)]
        RowsDone.now = pools[-1].metrics.row_outputs_taken if pools else 0

    def after_execution_succeeds(self, executor: Any) -> None:
        """Keep what it came to."""
        self.on_execution_step(executor)
        RowsDone.before, RowsDone.now = RowsDone.before + RowsDone.now, 0

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Forget it: its rows are not done."""
        RowsDone.now = 0


def _is_pool(operator: Any) -> bool:
    """Tasks that read and write are as many as there is room for."""
    if isinstance(operator, TaskPoolMapOperator):
        return operator.get_max_concurrency_limit() is not None
    return isinstance(operator, ActorPoolMapOperator)


def rows_done(total: int | None = None) -> Probe:
    """From here on, of ``total`` rows where they are known."""
    first = RowsDone.before + RowsDone.now

    def probe() -> Done | None:
        done = RowsDone.before + RowsDone.now - first
        return Done(done, total, "rows") if done or total is not None else None

    return probe

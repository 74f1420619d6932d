"""Jobs in two halves: Spark plans, Ray does. In one process one after the other, on two clusters as two commands."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.config.models import Config
    from pipeline.lake.plans import Plan
    from pipeline.lake.run import Run


@dataclass(frozen=True)
class Halves:
    """Which half to do: both, the planning alone, or a plan that was made under another run id, which goes on."""

    plan_only: bool = False
    planned: str | None = None

    def __post_init__(self) -> None:
        if self.planned is None:
            return
        from pipeline.errors import ConfigError
        from pipeline.lake.run import RUN_ID

        if self.plan_only:
            raise ConfigError("--plan-only and --planned are two halves of a job: give one of them")
        if not RUN_ID.fullmatch(self.planned):
            raise ConfigError(f"--planned: {self.planned!r} is no run id; give the one that --plan-only printed")


BOTH = Halves()
_SHARED: ContextVar[ExitStack | None] = ContextVar(
    "what ends with the block of jobs that share a cluster", default=None
)


@contextmanager
def one_cluster() -> Iterator[None]:
    """Jobs within the block share the Ray cluster that the first one with work to do starts or joins."""
    with ExitStack() as until_end:
        outer = _SHARED.set(until_end)
        try:
            yield
        finally:
            _SHARED.reset(outer)


@contextmanager
def planned_run(
    job: str,
    config: "Config",
    make_plan: "Callable[[SparkSession, Run], Plan]",
    *,
    run_id: str | None = None,
    halves: Halves = BOTH,
    unchanged: "Callable[[Run], str | None]" = lambda run: None,
    **arguments: Any,
) -> "Iterator[tuple[Run, Plan | None]]":
    """The run of a job and its plan; no plan where there is nothing to do in this process.

    Where ``unchanged`` names a run that left nothing to do, nothing is planned and Spark does not start; a half alone
    does not ask. A plan that was made elsewhere keeps its run id: where a later run has written to the table meanwhile,
    its commits are refused. A plan that is done is deleted.
    """
    from pipeline.lake.plans import drop_plan, load_plan
    from pipeline.lake.run import Run
    from pipeline.lake.storage import Lake
    from pipeline.on_ray.session import ray_for

    if halves.planned:  # where there is none, no record takes the place of that run's
        load_plan(Lake.open(config.lake, config.storage_options), job, halves.planned)

    name = f"{job}-plan" if halves.plan_only else job
    with Run(name, config, run_id=halves.planned or run_id, **arguments) as run:
        if halves == BOTH and (since := unchanged(run)):
            run.metrics["unchanged_since"] = since
            yield run, None
            return
        plan = load_plan(run.lake, job, halves.planned) if halves.planned else _plan(run, make_plan)
        if halves.plan_only:
            typer.echo(_next(job, plan))  # for people and schedulers alike: a result, not a line of log
            yield run, None
        elif plan.rows:
            with ray_for(run, _SHARED.get()):
                yield run, plan
            drop_plan(run.lake, plan)
        else:
            drop_plan(run.lake, plan)
            yield run, None


def _plan(run: "Run", make_plan: "Callable[[SparkSession, Run], Plan]") -> "Plan":
    from pipeline.lake.plans import drop_plans
    from pipeline.on_spark.session import spark_for

    with spark_for(run) as spark, run.phase("plan"):
        plan = make_plan(spark, run)
        drop_plans(run.lake, plan)
        return plan


def _next(job: str, plan: "Plan") -> str:
    if not plan.rows:
        return f"{job}: nothing to do"
    return f"{job}: {plan.rows:,} rows in {plan.chunks:,} chunks; do them with: hisam {job} --planned {plan.run_id}"

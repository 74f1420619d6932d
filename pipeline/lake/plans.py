"""Plans: what Spark has decided is to be done, as Parquet below ``LAKE/plans/RUN_ID/JOB``, for Ray to do.

A plan is cut into chunks, each of which becomes one commit, and a chunk into parts, each of which is one file and the
work of one task: ``chunk=3/part=7/….parquet``. ``plan.json``, written last, makes it whole.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import JobError
from pipeline.lake.storage import Lake

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Rows to do for a job, in so many chunks; ``facts`` are what the job need not find out or be told again."""

    job: str
    run_id: str
    rows: int
    chunks: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where it lies in the lake."""
        return plan_folder(self.job, self.run_id)

    @property
    def name(self) -> str:
        """What its commits are known by, see ``step`` of :func:`pipeline.lake.commit.commit`."""
        return f"hisam/{self.job}/{self.run_id}"

    def parts(self, lake: Lake, chunk: int) -> list[str]:
        """The files of a chunk, as paths in the lake's file system, sorted."""
        found = lake.entries(f"{self.folder}/chunk={chunk}", below=True)
        return sorted(info.path for info in found if info.extension == "parquet")

    def pending(self, done: int | None) -> Iterator[int]:
        """The chunks that are not committed, where ``done`` is the last one that is."""
        return iter(range(0 if done is None else done + 1, self.chunks))


def plan_folder(job: str, run_id: str) -> str:
    """Where the plan of a run's job lies in the lake."""
    return f"plans/{run_id}/{job}"


def save_plan(lake: Lake, plan: Plan) -> Plan:
    """Make a plan whole whose rows have been written."""
    lake.write_json(f"{plan.folder}/{PLAN}", asdict(plan))
    return plan


def load_plan(lake: Lake, job: str, run_id: str) -> Plan:
    """The plan that a run made for a job.

    Raises:
        JobError: there is none, or it is not whole; those that there are are named.
    """
    if PLAN not in lake.names(plan_folder(job, run_id)):
        there = [name for name in lake.names("plans") if PLAN in lake.names(plan_folder(job, name))]
        said = f"there are those of {', '.join(there)}" if there else f"run {job} --plan-only first"
        raise JobError(f"{lake.uri} has no plan {run_id} for {job}; {said}")
    return Plan(**lake.read_json(f"{plan_folder(job, run_id)}/{PLAN}"))


def drop_plan(lake: Lake, plan: Plan) -> None:
    """Delete a plan that is done."""
    _drop(lake, plan.job, plan.run_id)


def drop_plans(lake: Lake, by: Plan | None = None) -> None:
    """Delete every plan, or those that one takes the place of, ``by`` having what they had left to do."""
    for run_id in lake.names("plans"):
        for job in lake.names(f"plans/{run_id}"):
            if by is None or _replaced(lake, job, run_id, by):
                _drop(lake, job, run_id)


def _replaced(lake: Lake, job: str, run_id: str, by: Plan) -> bool:
    """Whether a plan is an older one of the same job and, if it is for one, the same tokenizer."""
    if job != by.job or run_id == by.run_id or PLAN not in lake.names(plan_folder(job, run_id)):
        return False
    return bool(load_plan(lake, job, run_id).facts.get("tokenizer") == by.facts.get("tokenizer"))


def _drop(lake: Lake, job: str, run_id: str) -> None:
    lake.delete(plan_folder(job, run_id))
    if not lake.names(f"plans/{run_id}"):
        lake.delete(f"plans/{run_id}")

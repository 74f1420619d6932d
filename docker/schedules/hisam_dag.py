"""Nights and upkeep under Airflow; every task is a command of ``hisam``.

Enable one of the two nights: ``hisam_nightly`` where both engines can be started from one machine, else
``hisam_nightly_in_halves``, whose tasks go to the queues ``spark`` and ``gpu``: let workers in the one image and in the
other listen to them. In the environment of the workers: ``HISAM_CONFIG``, the configuration file, and the store's keys.
The first night in halves ends at ``plan_tokenize``, which wants a tokenizer: train one, and clear that task.
"""

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

NIGHTLY, WEEKLY = "0 2 * * *", "0 12 * * 0"
IN_VAIN = {2: "usage or configuration is wrong", 3: "a gate refused the new IDs, the release is as it was"}
PUBLISH = """hisam publish -c "$HISAM_CONFIG" && status=0 || status=$?
hisam report -c "$HISAM_CONFIG" --nightly || true  # also where a gate refused; without a report a night is whole
exit $status"""


class Hisam(BashOperator):
    """A command of ``hisam``, tried again where that can help; what it prints last is its XCom."""

    def __init__(self, *, bash_command: str, **settings: Any) -> None:
        super().__init__(bash_command=f"set -euo pipefail; {bash_command}", append_env=True, **settings)

    def execute(self, context: Any) -> str:
        """Run it.

        Raises:
            AirflowFailException: it would fail again, so there are no retries.
            RuntimeError: it failed.
        """
        done = self.subprocess_hook.run_command(["bash", "-c", self.bash_command], env=self.get_env(context))
        if done.exit_code in IN_VAIN:
            raise AirflowFailException(f"exit status {done.exit_code}: {IN_VAIN[done.exit_code]}")
        if done.exit_code:
            raise RuntimeError(f"exit status {done.exit_code}, see the log")
        return done.output


def plan(job: str) -> Hisam:
    """The half of a job that Spark does; its XCom is the run id, or empty where there is nothing to do."""
    command = f'hisam {job} -c "$HISAM_CONFIG" --plan-only'
    # The log has all that it prints; of lines of both streams the run id must be the last.
    return Hisam(
        task_id=f"plan_{job}",
        queue="spark",
        bash_command=f"run=$({command} | tee /dev/stderr | sed -n 's/.*--planned //p'); echo \"$run\"",
    )


def planned(job: str) -> Hisam:
    """The half of a job that Ray does."""
    return Hisam(
        task_id=job,
        queue="gpu",
        env={"RUN": f"{{{{ ti.xcom_pull(task_ids='plan_{job}') or '' }}}}"},
        bash_command=f'[ -z "$RUN" ] || hisam {job} -c "$HISAM_CONFIG" --planned "$RUN"',
    )


def schedule(name: str, cron: str) -> DAG:
    """A DAG of which one run at a time is under way; a missed night is made up for by the next."""
    return DAG(
        name,
        schedule=cron,
        start_date=datetime(2026, 1, 1),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=18),
        default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
        tags=["hisam"],
    )


with schedule("hisam_nightly", NIGHTLY):
    Hisam(task_id="nightly", bash_command='hisam nightly -c "$HISAM_CONFIG"')

with schedule("hisam_nightly_in_halves", NIGHTLY):
    extract = Hisam(task_id="extract", queue="spark", bash_command='hisam extract -c "$HISAM_CONFIG"')
    publish = Hisam(task_id="publish", queue="spark", bash_command=PUBLISH)
    extract >> plan("encode") >> planned("encode") >> plan("tokenize") >> planned("tokenize") >> publish

with schedule("hisam_upkeep", WEEKLY):
    compact = Hisam(task_id="compact", bash_command='hisam compact -c "$HISAM_CONFIG"')
    compact >> Hisam(task_id="vacuum", bash_command='hisam vacuum -c "$HISAM_CONFIG"')

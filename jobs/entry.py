"""What every job's command shares: its options, its errors as exit statuses, and the lines it ends with."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from jobs.lines import DEFAULT_CONFIG as DEFAULT_CONFIG
from jobs.lines import logger, say, start_logging
from pipeline.lake.progress import for_machines

if TYPE_CHECKING:
    from pipeline.config.models import Config
    from pipeline.lake.run import Run

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: key.path=value. May be repeated.")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", help="Fingerprint; default: the released one, before the first release the newest trained."
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan-only", help="Plan on Spark and stop; another cluster does it with --planned.")
]
Planned = Annotated[
    str | None, typer.Option("--planned", help="Do the plan that --plan-only made under this run id; needs no Spark.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]

INTERRUPTED = 130
STOPPED = "interrupted; what was committed stays, the next run goes on from there"


def start(command: Callable[[], None]) -> None:
    """Run a command line; what a job says it cannot do becomes one message and its exit status.

    So does what an engine, a disk or a network fails with; a mistake of ours shows its traceback. SIGTERM, by which
    schedulers end jobs, is an interruption as that from a terminal is.
    """
    from jobs.error_messages import one_line, was_interrupted
    from pipeline.errors import JobError

    start_logging()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except Exception as error:
        if was_interrupted(error):
            _end(STOPPED, INTERRUPTED)
        said = one_line(error)
        if said is None and not for_machines():
            raise
        if said is None:
            logger.exception("%s, a mistake in this program", type(error).__name__)
            sys.exit(JobError.exit_status)
        _end(said, error.exit_status if isinstance(error, JobError) else JobError.exit_status)
    except KeyboardInterrupt:
        _end(STOPPED, INTERRUPTED)
    except SystemExit as ended:  # what typer makes of an interruption, without a word
        if ended.code == INTERRUPTED:
            _end(STOPPED, INTERRUPTED)
        raise


def _end(said: str, status: int) -> NoReturn:
    """With a line and a status, which machines find beside it."""
    from pipeline.config.places import without_secrets

    if for_machines():
        logger.error(said, extra={"fields": {"exit_status": status}})
    else:
        sys.stderr.write(f"hisam: {without_secrets(said)}\n")
    sys.exit(status)


def read_config(file: Path, overrides: list[str] | None = None) -> "Config":
    """The configuration that the options name."""
    from pipeline.config.file import load_config

    return load_config(file, overrides or ())


def tell(run: "Run", **fields: Any) -> None:
    """One line of what a finished job did, and where its record lies; for machines with ``fields``, too."""
    record = run.record()
    counts = ", ".join(f"{name} {n:,}" for name, n in record["counts"].items() if n)
    where, total = f"{run.lake.uri}/runs/{run.run_id}/{run.job}.json", record["seconds"]["total"]
    done = f"{run.job}: done in {total:.1f} s{': ' if counts else ''}{counts}"
    say(done, run, seconds=record["seconds"], record=where, **fields)
    if not for_machines():
        typer.echo(f"  {where}")

"""What jobs say of themselves on the terminal: lines for people, or a JSON object a line for machines."""

import json
import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipeline.lake.progress import for_machines

if TYPE_CHECKING:
    from pipeline.lake.run import Run

logger = logging.getLogger(__name__)

DEFAULT_CONFIG = Path("hisam.yaml")


def start_logging() -> None:
    """Send what is logged to stderr, as ``HISAM_LOG`` asks: ``json``, or lines; neither ever shows a secret."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if for_machines() else _Lines("%(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(for_machines())
    for name in ("pipeline", "jobs"):
        logging.getLogger(name).setLevel(logging.INFO)


def say(line: str, run: "Run | None" = None, **fields: Any) -> None:
    """A line on stdout; for machines one on stderr with ``fields`` beside it, of ``run`` or the latest."""
    if for_machines():
        logger.info(line.strip(), extra={"run": run, "fields": fields})
    else:
        typer.echo(line)


def show(table: Callable[..., None], *figures: Any, **options: Any) -> None:
    """A table for people; machines find its figures in the run record."""
    if not for_machines():
        table(*figures, **options)


def then(command: str, config: Path = DEFAULT_CONFIG) -> None:
    """The last line for people: what to do next."""
    if not for_machines():
        option = "" if config == DEFAULT_CONFIG else f" -c {shlex.quote(str(config))}"
        typer.echo(f"next: hisam {command}{option}")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from pipeline.config.places import without_secrets

        return without_secrets(super().format(record))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from pipeline.config.places import without_secrets
        from pipeline.lake.run import latest

        run: Run | None = getattr(record, "run", None) or latest()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "run_id": run.run_id if run else None,
            "job": run.job if run else None,
            "message": record.getMessage(),
            "counts": run.counts if run else {},
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line, ensure_ascii=False, default=str))

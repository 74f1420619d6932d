"""What the terminal is spared of Ray: what is no fault, and advice; a fault is a line of the log, or raised."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import DataContext

from pipeline.lake.progress import bars

logger = logging.getLogger(__name__)

STDERR = 2
LEVEL = b"Set ray log level from environment variable"
STARTED = "worker processes have been started"  # more than cores, as small tasks and idle actors want


@contextmanager
def quiet_start() -> Iterator[None]:
    """While Ray starts, its library says below Python that it found its log level; all else is let through, after."""
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(STDERR)
        os.dup2(said.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, STDERR)
            os.close(stderr)
            said.seek(0)
            os.write(STDERR, b"".join(line for line in said if LEVEL not in line))


def quiet_data_logs() -> None:
    """Progress bars on a terminal, nothing elsewhere: Ray Data raises errors, and has a file for their tracebacks."""
    context = DataContext.get_current()
    context.enable_progress_bars = bars()
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else a JobError's sentence is lost on its way to the driver
    log = logging.getLogger("ray.data")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray."):  # the terminal's
            handler.setLevel(logging.CRITICAL)


def log_raylets() -> None:
    """Log what raylets tell of workers that died or were killed; Ray itself prints it, on stdout, with advice."""
    ray._private.worker.print_to_stdstream = _log


def _log(told: Mapping[str, Any], ignore_prefix: bool = True) -> None:
    for message in told["lines"]:
        line = message.strip().partition("\n")[0]
        if line and STARTED not in line:
            logger.warning("ray: %s", line)

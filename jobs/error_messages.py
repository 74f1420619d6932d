"""One line for what engines, disks and networks end a job with; anything else is a mistake of ours, and shows where."""

import errno
from collections.abc import Iterator
from typing import Any

from pipeline.errors import AGAIN, JobError, LeaseLost, first_line

ENGINES = {"ray": "Ray", "pyspark": "Spark", "py4j": "Spark", "deltalake": "Delta"}
FULL = ("No space left on device", "Disk quota exceeded", "File too large", "HTTP status 507", "507 Insufficient")
LASTING = {  # of Spark's errors those that come from what it was given: another run ends as this one did
    *("AnalysisException", "ParseException", "IllegalArgumentException", "SparkRuntimeException"),
    *("ArithmeticException", "DateTimeException", "NumberFormatException", "ArrayIndexOutOfBoundsException"),
}
LONGEST = 300


def was_interrupted(error: BaseException) -> bool:
    """Whether it came of an interruption: what ends a job may end Java with it, which then fails to be stopped."""
    causes = list(_causes(error))
    stopped_itself = any(isinstance(cause, LeaseLost) for cause in causes)
    return not stopped_itself and any(isinstance(cause, KeyboardInterrupt) for cause in causes)


def one_line(error: BaseException) -> str | None:
    """What to tell the user, in one line; ``None`` for an error that deserves its traceback."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, JobError) and not _engine(cause):  # Ray's double of one tells its traceback, too
            return str(cause)
    for cause in causes:
        if full := _full_disk(cause):
            return f"{full}: make room; {AGAIN}"
    for cause in causes:
        engine = _engine(cause)
        if engine == "Spark" and _java_is_gone(cause):
            return f"Spark: its Java process died, killed or out of memory (spark.conf: spark.driver.memory); {AGAIN}"
        if engine and not _carries_another(cause) and not (engine == "Ray" and _says_nothing(cause, causes)):
            return f"{engine}: {_first_line(cause)}" + ("" if type(cause).__name__ in LASTING else f"; {AGAIN}")
    for cause in causes:
        if isinstance(cause, (OSError, MemoryError)) and not _carries_another(cause):
            return f"{_first_line(cause)}; {AGAIN}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it says it comes from, or interrupted; of a Ray task's, what the task raised."""
    seen: set[int] = set()
    waiting: list[BaseException | Any] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [getattr(cause, "cause", None), cause.__cause__, cause.__context__]


def _engine(error: BaseException) -> str | None:
    roots = (kind.__module__.split(".")[0] for kind in type(error).__mro__)
    return next((ENGINES[root] for root in roots if root in ENGINES), None)


def _full_disk(error: BaseException) -> str | None:
    """The line of the error that says so."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _first_line(error)
    said = (line for line in (first_line(error), *_said(error).splitlines()) if any(sign in line for sign in FULL))
    return next(map(_short, said), None)


def _java_is_gone(error: BaseException) -> bool:
    return "py4j" in type(error).__module__ and type(error).__name__ in ("Py4JNetworkError", "Py4JError")


def _carries_another(error: BaseException) -> bool:
    """A task that raised: what it raised decides."""
    return isinstance(getattr(error, "cause", None), BaseException)


def _says_nothing(error: BaseException, causes: list[BaseException]) -> bool:
    """Ray Data raises from such ones, or beside them, what happens to it in the driver, whatever that is."""
    return first_line(error) == type(error).__name__ and not all(map(_engine, causes))


def _first_line(error: BaseException) -> str:
    said, kind = first_line(error), type(error).__name__
    return _short(
        said if kind in (said, "Py4JJavaError") else f"{kind}: {said}"
    )  # Java's errors have kinds of their own


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - py4j asks Java for the text, which may be gone
        return ""


def _short(line: str) -> str:
    line = line.strip().removeprefix("Caused by: ")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"

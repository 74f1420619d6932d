"""What a job says when an engine, a disk or a network fails it: one line; a mistake of ours keeps its traceback."""

import errno

import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.errors import SparkRuntimeException
from ray.data.exceptions import SystemException
from ray.exceptions import ActorDiedError, ObjectRefStreamEndOfStreamError, RayTaskError

from jobs.entry import start
from jobs.error_messages import AGAIN, one_line, was_interrupted
from pipeline.errors import GateRefused, JobError, LeaseLost


def of_a_task(cause: Exception) -> Exception:
    """The error that Ray raises in the driver for what a task raised."""
    return RayTaskError("encode", "Traceback (most recent call last):\n  many lines", cause).as_instanceof_cause()


def after(error: BaseException, earlier: BaseException) -> BaseException:
    """An error that came while another one was handled."""
    error.__context__ = earlier
    return error


def in_ray_data(error: Exception) -> Exception:
    """As Ray Data raises what happened to it in the driver."""
    error.__cause__, error.__context__ = SystemException(), ObjectRefStreamEndOfStreamError()
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JobError("there are no items: run extract first"), "there are no items: run extract first"),
        (of_a_task(JobError("the tokenizer is broken")), "the tokenizer is broken"),
        (ActorDiedError(), "Ray: ActorDiedError: The actor died"),
        (of_a_task(OSError(errno.ENOSPC, "No space left on device")), "OSError: [Errno 28] No space left on device"),
        (RuntimeError("a\n  Generic error: No space left on device (os error 28)\nb"), "Generic error: No space left"),
        (Py4JNetworkError("Answer from Java side is empty"), "Spark: its Java process died"),
        (after(ConnectionRefusedError(111, "Connection refused"), Py4JNetworkError("gone")), "Spark: its Java process"),
        (ConnectionResetError(104, "Connection reset by peer"), "ConnectionResetError: [Errno 104] Connection reset"),
        (MemoryError(), f"MemoryError; {AGAIN}"),
        (in_ray_data(OSError("AWS Error ACCESS_DENIED")), "OSError: AWS Error ACCESS_DENIED"),
        (in_ray_data(of_a_task(OSError("AWS Error NO_SUCH_BUCKET"))), "OSError: AWS Error NO_SUCH_BUCKET"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_from_outside_are_told_in_one_line(error: BaseException, said: str) -> None:
    told = one_line(error)
    assert told is not None
    assert told.startswith(said)
    assert "\n" not in told
    assert isinstance(error, JobError) or "JobError" in type(error).__name__ or told.endswith(AGAIN)


def test_what_would_fail_again_is_not_to_be_run_again() -> None:
    told = one_line(SparkRuntimeException("[CAST_INVALID_INPUT] 'maybe' is no BOOLEAN"))
    assert told == "Spark: SparkRuntimeException: [CAST_INVALID_INPUT] 'maybe' is no BOOLEAN"


@pytest.mark.parametrize(
    "error", [KeyError("item_id"), of_a_task(ValueError("a bug in a batch")), in_ray_data(ValueError("a bug"))]
)
def test_mistakes_of_ours_keep_their_traceback(error: Exception) -> None:
    def fails() -> None:
        raise error

    assert one_line(error) is None
    with pytest.raises(type(error)):
        start(fails)


@pytest.mark.parametrize(("error", "status"), [(GateRefused("no"), 3), (of_a_task(JobError("no")), 1), (OSError(), 1)])
def test_the_exit_status_says_what_kind_it_was(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        start(fails)
    assert end.value.code == status
    assert capsys.readouterr().err.startswith("hisam: ")


def test_what_fails_because_the_job_was_interrupted_is_an_interruption() -> None:
    java_is_gone = Py4JNetworkError("Java is gone")
    assert not was_interrupted(java_is_gone)
    assert was_interrupted(after(java_is_gone, KeyboardInterrupt()))
    assert not was_interrupted(after(LeaseLost("the lease was lost"), KeyboardInterrupt()))  # it stopped itself

"""What a job can end with other than success; the command line turns each into an exit status."""

AGAIN = "what was committed stays; run it again to go on from there"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says anything, else the name of its kind."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class JobError(Exception):
    """The job could not do its work; the message says what is wrong and what to do. Exit status 1."""

    exit_status = 1


class ConfigError(JobError):
    """The command line or the configuration is wrong. Exit status 2."""

    exit_status = 2


class GateRefused(JobError):
    """A publish gate refused the new IDs; the release is as it was. Exit status 3."""

    exit_status = 3

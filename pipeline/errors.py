"""What a job can end with other than success; the command line turns each into an exit status."""

import re

AGAIN = "what was committed stays; run it again to go on from there"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says anything, else the name of its kind.

    Where lines that follow tell from what it came, as delta-rs's and Java's do, the last of these is told, too.
    """
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - py4j asks Java for the text, which may be gone
        said = ""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", said).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    causes = [line.removeprefix("↳ ") for line in lines if line.startswith("↳") and not line.startswith("↳ <")]
    if causes:
        code = re.search("<Code>([^<]*)</Code>", said)
        return f"{lines[0]}: {causes[-1]}" + (f" ({code[1]})" if code else "")
    if "Java" in type(error).__name__ and lines[0].startswith("An error occurred while calling"):
        raised = [line for line in lines[1:] if line.startswith((":", "Caused by:"))]
        return raised[-1].removeprefix("Caused by:").removeprefix(":").strip() if raised else lines[0]
    return lines[0]


class JobError(Exception):
    """The job could not do its work; the message says what is wrong and what to do. Exit status 1."""

    exit_status = 1


class LeaseLost(JobError):
    """The job stopped itself, since its lake may be another's by now. Exit status 1."""


class ConfigError(JobError):
    """The command line or the configuration is wrong. Exit status 2."""

    exit_status = 2


class GateRefused(JobError):
    """A publish gate refused the new IDs; the release is as it was. Exit status 3."""

    exit_status = 3

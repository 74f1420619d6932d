"""``hisam``: every job as a command."""

import os
from enum import StrEnum
from typing import Annotated

import typer

from jobs import (
    backfill,
    check,
    compact,
    demo,
    encode,
    evaluate,
    explain,
    export,
    extract,
    init,
    metrics,
    nightly,
    publish,
    purge,
    report,
    rollback,
    score,
    sequences,
    status,
    tokenize,
    train_ranker,
    train_tokenizer,
    vacuum,
)
from jobs.entry import start
from jobs.lines import start_logging
from pipeline.lake.progress import LOG

app = typer.Typer(
    name="hisam",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "demo": demo,
    "init": init,
    "check": check,
    "extract": extract,
    "encode": encode,
    "train-tokenizer": train_tokenizer,
    "tokenize": tokenize,
    "publish": publish,
    "rollback": rollback,
    "sequences": sequences,
    "train-ranker": train_ranker,
    "evaluate": evaluate,
    "score": score,
    "nightly": nightly,
    "backfill": backfill,
    "report": report,
    "explain": explain,
    "status": status,
    "metrics": metrics,
    "export": export,
    "compact": compact,
    "purge": purge,
    "vacuum": vacuum,
}
for name, module in COMMANDS.items():
    app.command(name)(module.command)


class Form(StrEnum):
    """Of what jobs say."""

    text = "text"
    json = "json"


@app.callback()
def options(
    log: Annotated[
        Form, typer.Option("--log", envvar=LOG, help="What jobs say: text, or a JSON object a line, on stderr.")
    ] = Form.text,
) -> None:
    """Hi-SAM: semantic IDs for a catalogue, every night, and the ranker that reads them."""
    if log.value != os.environ.get(LOG, Form.text):
        os.environ[LOG] = log.value
        start_logging()


def main() -> None:
    """The console script."""
    start(app)

"""``hisam``: every job as a command."""

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

app = typer.Typer(
    name="hisam",
    help="Hi-SAM: semantic IDs for a catalogue, every night, and the ranker that reads them.",
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
    "export": export,
    "compact": compact,
    "purge": purge,
    "vacuum": vacuum,
}
for name, module in COMMANDS.items():
    app.command(name)(module.command)


def main() -> None:
    """The console script."""
    start(app)

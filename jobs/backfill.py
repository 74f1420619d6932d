"""IDs of every live item under another tokenizer, beside the released ones."""

from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start
from jobs.tokenize import run_tokenize


def command(
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Fingerprint of the tokenizer to fill in.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Give every live item IDs under another tokenizer, from its stored vectors; the release stays as it is."""
    run_tokenize(read_config(config, overrides), tokenizer, job="backfill")


if __name__ == "__main__":
    start(lambda: typer.run(command))

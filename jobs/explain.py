"""Where an item's IDs came from."""

import json
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start


def command(
    item_id: Annotated[str, typer.Argument(help="The item's id, as the catalogue spells it.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Show an item's versions, quarantine, IDs and nearest items by prefix, as JSON."""
    from pipeline.explain import explain

    found = explain(read_config(config, overrides), item_id)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))


if __name__ == "__main__":
    start(lambda: typer.run(command))

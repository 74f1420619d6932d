"""Where an item's IDs came from."""

import json
from typing import Annotated

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Json, Overrides, read_config, start


def command(
    item_id: Annotated[str, typer.Argument(help="The item's id, as the catalogue spells it.")],
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show an item's versions, IDs, quarantine, what its codes stand for, and its nearest items by prefix."""
    from jobs.views import show_item
    from pipeline.inspect.explain import explain

    found = explain(read_config(config, overrides), item_id)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        show_item(found)


if __name__ == "__main__":
    start(lambda: typer.run(command))

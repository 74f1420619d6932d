"""Tables, versions, rows, pending work, released fingerprint."""

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, start


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Show what the lake holds, what is released and what is waiting."""
    from jobs.tables import show_status
    from pipeline.status import status

    show_status(status(read_config(config, overrides)))


if __name__ == "__main__":
    start(lambda: typer.run(command))

"""Ray Data: users and candidates → the best candidates of every user, by a trained ranker."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say


def command(
    users: Annotated[Path, typer.Option("--users", help="CSV or Parquet with a column user_id.")],
    candidates: Annotated[Path, typer.Option("--candidates", help="CSV or Parquet with a column item_id.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to write, new or empty.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Candidates a user to keep.")] = 100,
    memories: Annotated[bool, typer.Option("--memories", help="Write the users' memories, too.")] = False,
    ranker: Annotated[str | None, typer.Option("--ranker", help="Fingerprint; default: the newest trained.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
) -> None:
    """Rank candidates for users by what is known of them at the end of the log (Ray Data)."""
    from pipeline.lake.artefacts import newest
    from pipeline.lake.run import Run
    from pipeline.on_ray.score import score
    from pipeline.on_ray.session import ray_for

    settings = read_config(config, overrides)
    asked, items = ids_in(users, "--users", "user_id"), ids_in(candidates, "--candidates", "item_id")
    arguments: dict[str, Any] = {
        "users": str(users),
        "candidates": str(candidates),
        "to": str(to),
        "top": top,
        "memories": memories,
        "ranker": ranker,
    }
    with Run("score", settings, writes=False, **arguments) as run, ray_for(run):
        score(run, ranker or newest(run.lake, "rankers"), asked, items, to.absolute(), top, memories)
    tell(run)
    say(f"  {to}", run)


def ids_in(file: Path, option: str, column: str) -> list[str]:
    """The values of a column of a CSV or Parquet file, as strings.

    Raises:
        ConfigError: the file cannot be read, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    from pipeline.errors import ConfigError

    try:
        if file.suffix == ".csv":
            kinds = csv.ConvertOptions(column_types={column: pa.string()}, include_columns=[column])
            rows = csv.read_csv(file, convert_options=kinds)
        else:
            rows = pq.read_table(file, columns=[column])
        values: list[str] = pc.cast(rows[column], pa.string()).drop_null().to_pylist()
    except (KeyError, OSError, pa.ArrowException) as error:
        raise ConfigError(f"{option} {file}: no column {column} can be read: {error}") from error
    return values

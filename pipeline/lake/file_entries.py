"""What a table's log says of a data file: its size, its partition, its rows, and bounds of its keys."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from pyarrow import fs

from pipeline.lake.storage import Lake
from schemas.tables import Table

AT_ONCE = 16  # footers read at a time; an object store takes its time for each
LONGEST = 64  # characters of a bound that the log keeps
LAST = "\U0010ffff"  # in the order of strings no character comes after it


def add_actions(lake: Lake, table: Table, files: Sequence[str]) -> list[AddAction]:
    """What the log says of each file: its size, its rows, and the least and greatest key; footers are read at once."""
    infos = lake.filesystem.get_file_info([lake.path(f"{table.name}/{file}") for file in files])

    def action(file: str, info: fs.FileInfo) -> AddAction | None:
        with lake.filesystem.open_input_file(info.path) as stream, pq.ParquetFile(stream) as content:
            if content.metadata.num_rows == 0:
                return None
            return AddAction(
                path=file,
                size=info.size,
                partition_values=partition_values(file),
                modification_time=int(info.mtime.timestamp() * 1000),
                data_change=True,
                # delta-rs reads an escaped pair of surrogates as another character.
                stats=json.dumps(_statistics(content, bounded_columns(table)), ensure_ascii=False),
            )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(action, files, infos))
    return [each for each in found if each is not None]


def bounded_columns(table: Table) -> list[str]:
    """The columns that the log has bounds of, for every file: readers take a missing one for an empty range."""
    return [name for name in table.key if name not in table.partition]


def _statistics(file: pq.ParquetFile, columns: Sequence[str]) -> dict[str, Any]:
    footer = file.metadata
    least, most = {}, {}
    places = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    for name in columns:
        groups = [footer.row_group(g).column(places[name]).statistics for g in range(footer.num_row_groups)]
        if all(group is not None and group.has_min_max for group in groups):
            low, high = min(group.min for group in groups), max(group.max for group in groups)
        else:
            low, high = pc.min_max(file.read([name])[name]).as_py().values()
        least[name], most[name] = _below(low), _above(high)
    nulls = dict.fromkeys(columns, 0)
    return {"numRecords": footer.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}


def _below(value: Any) -> Any:
    """A bound for the log that is not above ``value``."""
    return value[:LONGEST] if isinstance(value, str) else value


def _above(value: Any) -> Any:
    """A bound for the log that is not below ``value``; the order is that of code points, as in UTF-8."""
    if not isinstance(value, str) or len(value) <= LONGEST:
        return value
    end = next((n for n in range(LONGEST, len(value)) if value[n] != LAST), len(value))
    return value[:end] + LAST


def partition_values(path: str) -> dict[str, str | None]:
    """What the folders of a path name as ``column=value``."""
    pairs = [part.partition("=") for part in path.split("/")[:-1] if "=" in part]
    return {name: unquote(value) for name, _, value in pairs}

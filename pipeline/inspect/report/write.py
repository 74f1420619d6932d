"""A report's two files, ``index.html`` and ``report.json``, into a folder of the lake or another one.

A lake keeps its newest reports.
"""

import json
import secrets
from pathlib import Path

from pyarrow import fs

from pipeline.inspect.report.gather import Findings
from pipeline.inspect.report.page import page
from pipeline.lake.run import RUN_ID
from pipeline.lake.storage import Lake

PAGE, FIGURES = "index.html", "report.json"
KEPT = 30  # reports of a lake: each has the charts' library in it


def write(found: Findings, lake: Lake, run_id: str, to: Path | None = None) -> str:
    """Write both files; the page's place, in ``to`` or in ``LAKE/reports/RUN_ID``, where nothing else lies."""
    if to is None:
        filesystem, folder = lake.filesystem, lake.path(f"reports/{run_id}")
        place = f"{lake.uri}/reports/{run_id}/{PAGE}"
    else:
        filesystem, folder = fs.LocalFileSystem(), str(to.resolve())
        place = f"{folder}/{PAGE}"
    filesystem.create_dir(folder, recursive=True)
    figures = json.dumps(found.data, indent=1, ensure_ascii=False, default=str)
    for name, content in ((FIGURES, figures), (PAGE, page(found))):
        half = f"{folder}/{name}.{secrets.token_hex(4)}.part"
        with filesystem.open_output_stream(half) as stream:
            stream.write(content.encode())
        filesystem.move(half, f"{folder}/{name}")
    if to is None:
        _drop_old(lake)
    return place


def _drop_old(lake: Lake) -> None:
    """Delete the lake's oldest reports past :data:`KEPT`."""
    reports = [name for name in lake.names("reports") if RUN_ID.fullmatch(name)]
    for name in reports[:-KEPT]:
        lake.delete(f"reports/{name}")

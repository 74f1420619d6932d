"""Vacuum: what killed runs left behind and what no reader can need any more is deleted, and told by place.

Which files of a table may go is delta-rs's judgement (its full vacuum, run dry): of no commit, or of versions that are
neither the newest nor kept, for longer than the limit. Kept are the versions of ``released_ids`` of every release that
a rollback can reach. Deleting is done here, so that no version of a table moves and a second vacuum finds nothing.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from deltalake.exceptions import DeltaError
from pyarrow import fs

from pipeline.errors import JobError
from pipeline.lake.artefacts import WHOLE
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.release.pointer import standing_releases
from schemas.tables import RELEASED_IDS, TABLES, Table

logger = logging.getLogger(__name__)

HALF_WRITTEN = (".part", ".tmp")
UNFINISHED = ("staging", "plans", "checkpoints")  # what a run that ends well deletes
ARTEFACTS = ("tokenizers", "rankers")
LOG = "_delta_log"
AT_ONCE = 16  # deletions; an object store takes its time for each


@dataclass(frozen=True)
class Leftover:
    """A file that can go: its path within the lake, its size, and the table or folder it is counted under."""

    path: str
    bytes: int

    @property
    def place(self) -> str:
        """The first folder of the path."""
        return self.path.split("/", 1)[0]


def vacuum(
    run: Run, older_than_hours: int, *, keep_releases: int | None = None, dry_run: bool = False
) -> list[Leftover]:
    """Delete what is left over for longer than the limit, or with ``dry_run`` only say what would go.

    Nobody may be writing to the lake; a reader that began before the limit may lose its files. Only with
    ``keep_releases`` may a release that a rollback can reach lose its files: all but so many, the current one counted.

    Raises:
        JobError: a version that must be kept cannot be read, so that nothing is deleted; or a file cannot be deleted.
    """
    lake = run.lake
    with run.phase("find"):
        before = datetime.now(UTC) - timedelta(hours=older_than_hours)
        entries = {info.path.removeprefix(f"{lake.path('')}/"): info for info in lake.entries("", below=True)}
        files = {path: info for path, info in entries.items() if info.type == fs.FileType.File}
        folders = {path: info for path, info in entries.items() if info.type == fs.FileType.Directory}
        gone = set(_abandoned(files, before))
        for table in TABLES.values():
            if lake.exists(table):
                kept = _kept_versions(lake, table, keep_releases)
                gone |= _of_no_version(lake, table, files.keys(), older_than_hours, kept)
        empty = _emptied(folders, files.keys() - gone, before)
    leftovers = [Leftover(path, files[path].size) for path in sorted(gone)]
    run.count(files=len(leftovers), bytes=sum(each.bytes for each in leftovers), folders=len(empty))
    run.metrics |= {"older_than_hours": older_than_hours, "dry_run": dry_run, "places": by_place(leftovers)}
    if not dry_run:
        with run.phase("delete"):
            _delete(lake, leftovers, empty)
    return leftovers


def by_place(leftovers: Iterable[Leftover]) -> dict[str, dict[str, int]]:
    """``files`` and ``bytes`` of every table and folder that something is left over in."""
    files: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for each in leftovers:
        files[each.place] += 1
        size[each.place] += each.bytes
    return {place: {"files": files[place], "bytes": size[place]} for place in sorted(files)}


def _of_no_version(
    lake: Lake, table: Table, files: Iterable[str], older_than_hours: int, kept_versions: list[int]
) -> set[str]:
    """Files of ``table`` that no version needs; the checksum that Spark lays beside a file goes with that file."""
    try:
        judged = lake.delta(table).vacuum(
            older_than_hours,
            dry_run=True,
            enforce_retention_duration=False,
            full=True,
            keep_versions=kept_versions or None,
        )
    except DeltaError as error:
        raise JobError(f"{table.name}: versions {kept_versions} must stay but cannot be read: {error}") from error
    there = {path for path in files if path.startswith(f"{table.name}/")}
    gone = {f"{table.name}/{path}" for path in judged} & there
    kept = there - gone
    return {path for path in gone if _checked_by(path) not in kept}


def _kept_versions(lake: Lake, table: Table, keep_releases: int | None) -> list[int]:
    """The versions of ``table`` that a rollback needs, as far as its log reaches back."""
    if table is not RELEASED_IDS:
        return []
    standing = standing_releases(lake)[-keep_releases if keep_releases else 0 :]
    versions = sorted({release.released_ids_version for release in standing})
    logged = [version for version in versions if lake.logged(table, version)]
    if len(logged) < len(versions):
        expired = len(versions) - len(logged)
        logger.warning("%s: %d released versions have left the log: no rollback reaches them", table.name, expired)
    return logged


def _abandoned(files: dict[str, fs.FileInfo], before: datetime) -> Iterable[str]:
    """Outside tables' data: halves of files, and folders of runs that ended without cleaning up."""
    groups: dict[str, list[str]] = {}
    for path, info in files.items():
        top, *rest = path.split("/")
        if path.endswith(HALF_WRITTEN) and (top not in TABLES or LOG in rest):
            if info.mtime < before:
                yield path
        elif top in (*UNFINISHED, *ARTEFACTS) and len(rest) > 1:
            groups.setdefault(f"{top}/{rest[0]}", []).append(path)
    for folder, members in groups.items():
        if folder.startswith(ARTEFACTS) and f"{folder}/{WHOLE}" in files:
            continue
        if max(files[path].mtime for path in members) < before:
            yield from members


def _emptied(folders: dict[str, fs.FileInfo], kept: Iterable[str], before: datetime) -> list[str]:
    """Folders below the lake's own ones that hold no file any more, the deepest first."""
    needed = {str(parent) for path in kept for parent in PurePosixPath(path).parents}
    empty = [
        path
        for path, info in folders.items()
        if path not in needed and "/" in path and LOG not in path.split("/")
        # An object store has no folders, at most marks of them, and those have no time.
        if info.mtime is None or info.mtime < before
    ]
    return sorted(empty, key=lambda path: path.count("/"), reverse=True)


def _checked_by(path: str) -> str:
    """The file that ``path`` holds Hadoop's checksum of; for any other path no file at all."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name[1:-4]}" if name.startswith(".") and name.endswith(".crc") else ""


def _delete(lake: Lake, leftovers: list[Leftover], folders: list[str]) -> None:
    def delete(leftover: Leftover) -> None:
        try:
            lake.filesystem.delete_file(lake.path(leftover.path))
        except OSError as error:
            raise JobError(f"{lake.uri}/{leftover.path} cannot be deleted ({error}): run vacuum again") from error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(delete, leftovers))
    for folder in folders:
        if not lake.names(folder):
            lake.delete(folder)

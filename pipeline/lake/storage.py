"""The lake: where tables, artefacts and run records lie, and how they are read."""

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from pyarrow import fs

from pipeline.config.places import check_lake, check_options
from pipeline.errors import ConfigError, JobError, first_line
from pipeline.lake.object_store import S3Store, why_refused
from schemas.tables import RELEASED_IDS, TABLES, Table

if TYPE_CHECKING:
    from pipeline.lake.commit import Writer
    from pipeline.lake.released_ids import ReleasedIds

FORM = 2  # of the tables; a lake of another form is refused
DESCRIPTION = "lake.json"
UNUSABLE = ("%*?[]{}\\", "take for patterns"), ("%*?[]{}\\#", "decode in different ways")  # in paths, in URIs
REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403", "HTTP status 401")
UPKEEP = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that change no row


class Lake:
    """A folder or an object-store URI that holds every table and artefact of one catalogue.

    ``storage_options`` say where an S3 store is (``AWS_ENDPOINT_URL``, ``AWS_REGION``, …; see
    :mod:`pipeline.lake.object_store`); secrets come from the environment of whichever process opens the lake and are in
    nothing that is pickled. To name a lake touches no disk: :meth:`open` is for readers, :meth:`create` for jobs.

    Raises:
        ConfigError: the path has characters that engines take for patterns, or is a URI of no store that a lake may lie
            in, or an option is wrong.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        try:
            check_lake(uri)
        except ValueError as error:
            raise ConfigError(f"lake: {uri}: {error}") from error
        try:
            self.storage_options = check_options(storage_options or {})
        except ValueError as error:
            raise ConfigError(f"storage_options: {error}") from error
        within, so = UNUSABLE["://" in uri]
        if unusable := sorted(set(uri) & set(within)):
            raise ConfigError(f"lake: {uri} has {' '.join(unusable)} in its path, which engines {so}")
        if "://" not in uri:
            uri = str(Path(uri).resolve())
        self.uri = uri.rstrip("/")
        self.writer: Writer | None = None

    @classmethod
    def open(cls, uri: str, storage_options: Mapping[str, str] | None = None) -> Self:
        """A lake to read from.

        Raises:
            JobError: there is none, or one of another form, or the store cannot be reached.
        """
        lake = cls(uri, storage_options)
        if not lake._check_form():
            raise JobError(f"there is no lake in {lake.uri}: is it the right place? The first extract makes one")
        return lake

    @classmethod
    def create(cls, uri: str, storage_options: Mapping[str, str] | None = None) -> Self:
        """A lake to write to, made if there is none.

        Raises:
            JobError: there is one of another form, or the store cannot be reached.
        """
        lake = cls(uri, storage_options)
        if not lake._check_form():
            lake.write_json(DESCRIPTION, {"form": FORM})
        return lake

    def _check_form(self) -> bool:
        try:
            names = set(self.names(""))
            if not names and self.store is not None:
                self._check_bucket(self.store)
        except NotADirectoryError as error:
            raise ConfigError(f"lake: {self.uri} is a file, a lake is a folder") from error
        except OSError as error:
            if self.store is None:
                raise
            raise JobError(f"{self.uri} cannot be reached at {self.store}: {_cause(error)}") from error
        if DESCRIPTION not in names and not names & {*TABLES, "embeddings"}:
            return False
        form = self.read_json(DESCRIPTION).get("form") if DESCRIPTION in names else 1
        if form != FORM:
            raise JobError(f"{self.uri} is a lake of form {form}, this version knows form {FORM}: begin a new lake")
        return True

    def _check_bucket(self, store: S3Store) -> None:
        """A store lists a bucket that is not there like an empty folder, and some make one of whatever is written."""
        if self.filesystem.get_file_info(store.bucket).type == fs.FileType.NotFound:
            raise JobError(f"there is no bucket {store.bucket} at {store}: make it, or name another as lake")

    def __getstate__(self) -> dict[str, Any]:
        """What names the lake; file systems are made, with the secrets of their machine, where they are used."""
        return {"uri": self.uri, "storage_options": self.storage_options, "writer": None}

    @property
    def store(self) -> S3Store | None:
        """The S3 store that the lake lies in, ``None`` where it lies in none."""
        return S3Store.of(self.uri, self.storage_options)

    @property
    def delta_options(self) -> dict[str, str]:
        """What delta-rs is to be given beside the place of a table."""
        return self.store.delta_rs() if self.store else {}

    @cached_property
    def _located(self) -> tuple[fs.FileSystem, str]:
        if self.store is not None:
            return self.store.arrow(), self.uri.split("://", 1)[1]
        try:
            return fs.FileSystem.from_uri(self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(f"lake: {self.uri} cannot be reached: {first_line(error)}") from error

    @property
    def filesystem(self) -> fs.FileSystem:
        """Where the lake lies."""
        return self._located[0]

    def path(self, relative: str) -> str:
        """The path of a file of the lake in :attr:`filesystem`."""
        return f"{self._located[1]}/{relative}" if relative else self._located[1]

    # Tables

    def table_uri(self, table: Table) -> str:
        """Where ``table`` lies."""
        return f"{self.uri}/{table.name}"

    def exists(self, table: Table) -> bool:
        """Whether ``table`` has been created."""
        return DeltaTable.is_deltatable(self.table_uri(table), self.delta_options)

    def delta(self, table: Table, version: int | None = None) -> DeltaTable:
        """``table`` as delta-rs sees it, at ``version`` or the newest.

        Raises:
            JobError: the table is not there yet.
        """
        if not self.exists(table):
            raise JobError(f"there is no table {table.name} in {self.uri}: run the job that writes it first")
        return DeltaTable(self.table_uri(table), version=version, storage_options=self.delta_options)

    def version(self, table: Table) -> int | None:
        """The newest version of ``table``, ``None`` where it is not there."""
        return self.delta(table).version() if self.exists(table) else None

    def rows_changed(self, table: Table, since: int) -> bool:
        """Whether a commit after version ``since`` changed rows; compactions do not. A younger table has other rows."""
        delta = self.delta(table)
        newer = delta.version() - since
        if newer <= 0:
            return newer < 0
        commits = delta.history(newer)
        return len(commits) < newer or any(commit.get("operation") not in UPKEEP for commit in commits)

    def logged(self, table: Table, version: int) -> bool:
        """Whether the log of ``table`` still has ``version``."""
        names = self.names(f"{table.name}/_delta_log")
        return any(name.startswith(f"{version:020}.") and name.endswith((".json", ".parquet")) for name in names)

    def whole(self, table: Table, version: int) -> bool:
        """Whether ``version`` of ``table`` can still be read: in the log, with all its files."""
        if not self.logged(table, version):
            return False
        paths = [self.path(f"{table.name}/{file}") for file in self.files(table, version=version)]
        return all(info.type == fs.FileType.File for info in self.filesystem.get_file_info(paths))

    def rows(self, table: Table) -> int:
        """Rows of ``table`` from the transaction log alone."""
        return sum(self.delta(table).get_add_actions(flatten=True).column("num_records").to_pylist())

    def files(self, table: Table, where: Mapping[str, str] | None = None, version: int | None = None) -> list[str]:
        """The files of the partitions that ``where`` picks, relative to the table, sorted; from the log alone."""
        actions = pa.table(self.delta(table, version).get_add_actions(flatten=True))
        for column, value in (where or {}).items():
            actions = actions.filter(ds.field(f"partition.{column}").cast(pa.string()) == str(value))
        return sorted(actions["path"].to_pylist())

    def dataset(self, table: Table, version: int | None = None) -> ds.Dataset:
        """``table`` as a dataset that opens the files which a filter may need, by their statistics in the log.

        Raises:
            JobError: the table is not there yet.
        """
        # Arrow's own file system: delta-rs's is made of Python objects, which a thread of Arrow may let go of while
        # Python ends, and that aborts the process (docs/operations.md). For the same reason an isin() of a filter is
        # given lists, never a numpy array.
        files = fs.SubTreeFileSystem(self.path(table.name), self.filesystem)
        return self.delta(table, version).to_pyarrow_dataset(filesystem=files)

    def read(
        self,
        table: Table,
        columns: Sequence[str],
        *,
        where: ds.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Some columns of few rows in memory: of what ``where`` picks, or of a small table; one not there is empty."""
        if not self.exists(table):
            return pa.schema([table.schema.field(c) for c in columns]).empty_table()
        return pa.table(self.dataset(table, version).scanner(columns=list(columns), filter=where).to_table())

    def released_ids(self) -> "ReleasedIds":
        """What is released, as a pyarrow dataset, for Spark or for Ray: the whole of one release.

        Raises:
            JobError: nothing is released.
        """
        from pipeline.lake.released_ids import ReleasedIds

        if not self.exists(RELEASED_IDS) or not self.files(RELEASED_IDS):
            raise JobError(f"nothing is released in {self.uri}: run publish first")
        return ReleasedIds(self)

    # Files

    def write_json(self, relative: str, content: Any) -> None:
        """Write a small JSON file whole: a reader sees the old one or the new one."""
        path = self.path(relative)
        self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        half = f"{path}.{secrets.token_hex(4)}.part"  # of a name of its own: two jobs may make a lake at once
        with self.filesystem.open_output_stream(half) as stream:
            stream.write(json.dumps(content, indent=2, default=str).encode())
        self.filesystem.move(half, path)

    def read_json(self, relative: str) -> Any:
        """What :meth:`write_json` wrote.

        Raises:
            JobError: the file is not there, or is no JSON.
        """
        try:
            with self.filesystem.open_input_file(self.path(relative)) as file:
                return json.loads(file.read())
        except (OSError, ValueError) as error:
            raise JobError(f"{self.uri}/{relative} cannot be read ({error})") from error

    def names(self, relative: str) -> list[str]:
        """Names in a folder of the lake, sorted; empty where there is no such folder."""
        return sorted(info.base_name for info in self.entries(relative))

    def entries(self, relative: str, *, below: bool = False) -> list[fs.FileInfo]:
        """What lies in a folder of the lake, or anywhere ``below`` it; nothing where there is no such folder."""
        selector = fs.FileSelector(self.path(relative), allow_not_found=True, recursive=below)
        try:
            return self.filesystem.get_file_info(selector)
        except FileNotFoundError:  # Arrow's word for a folder that came between its two looks
            return self.filesystem.get_file_info(selector)

    def delete(self, relative: str) -> None:
        """Delete a folder of the lake, if it is there; an object store may list one that holds nothing."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path(relative))

    def upload(self, folder: Path, relative: str) -> None:
        """Copy the files of a local folder into the lake, the one written last at last."""
        self.filesystem.create_dir(self.path(relative), recursive=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
            fs.copy_files(str(file), self.path(f"{relative}/{file.name}"), destination_filesystem=self.filesystem)

    def download(self, relative: str, folder: Path) -> Path:
        """Copy a folder of the lake to a local folder."""
        folder.mkdir(parents=True, exist_ok=True)
        fs.copy_files(self.path(relative), str(folder), source_filesystem=self.filesystem)
        return folder


def _cause(error: OSError) -> str:
    """What a store said, and what to look at."""
    said = first_line(error)
    if any(sign in said for sign in REFUSED):
        return f"{why_refused()} ({said})"
    if "NETWORK_CONNECTION" in said:
        return f"is the store up, and storage_options right? ({said})"
    return said


def spark_uri(uri: str) -> str:
    """A URI as Hadoop's connectors, and so Spark, spell it."""
    return uri.replace("s3://", "s3a://", 1) if uri.startswith("s3://") else uri

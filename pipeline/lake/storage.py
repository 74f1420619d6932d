"""The lake: where tables, artefacts and run records lie, and how delta-rs reads and writes the tables."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from pyarrow import fs

from pipeline.errors import ConfigError, JobError
from schemas.tables import Table

UNUSABLE_IN_PATHS = "%*?[]{}\\"
S3_SETTINGS = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
UPKEEP = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that change no row


class Lake:
    """A folder or an object-store URI that holds every table and artefact of one catalogue.

    ``storage_options`` are delta-rs's (``AWS_ENDPOINT_URL``, ``AWS_REGION``, …); secrets come from the environment.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.storage_options = dict(storage_options or {})
        if "://" not in uri:
            unusable = sorted(set(uri) & set(UNUSABLE_IN_PATHS))
            if unusable:
                raise ConfigError(f"lake: {uri} has {' '.join(unusable)} in its path, which engines take for patterns")
            Path(uri).mkdir(parents=True, exist_ok=True)
            uri = str(Path(uri).resolve())
        self.uri = uri.rstrip("/")
        self.filesystem, self._root = self._resolve_filesystem()

    def _resolve_filesystem(self) -> tuple[fs.FileSystem, str]:
        if not self.uri.startswith(("s3://", "s3a://")):
            return fs.FileSystem.from_uri(self.uri)
        settings = self.store_settings()
        endpoint = settings.get("AWS_ENDPOINT_URL")
        store = fs.S3FileSystem(
            endpoint_override=endpoint,
            region=settings.get("AWS_REGION"),
            access_key=settings.get("AWS_ACCESS_KEY_ID"),
            secret_key=settings.get("AWS_SECRET_ACCESS_KEY"),
            session_token=settings.get("AWS_SESSION_TOKEN"),
            scheme="http" if endpoint and endpoint.startswith("http://") else "https",
        )
        return store, self.uri.split("://", 1)[1]

    def store_settings(self) -> dict[str, str]:
        """What the object store is reached with: ``storage_options``, for S3 over the environment."""
        if not self.uri.startswith(("s3://", "s3a://")):
            return {k: v for k, v in self.storage_options.items() if k.upper().startswith(("AZURE_", "GOOGLE_"))}
        settings = {**os.environ, **self.storage_options}
        return {key: settings[key] for key in S3_SETTINGS if key in settings}

    def table_uri(self, table: Table) -> str:
        """Where ``table`` lies."""
        return f"{self.uri}/{table.name}"

    def exists(self, table: Table) -> bool:
        """Whether ``table`` has been created."""
        return DeltaTable.is_deltatable(self.table_uri(table), self.storage_options)

    def create(self, table: Table) -> None:
        """Create ``table`` with its declared schema and partitioning, unless it is there."""
        DeltaTable.create(
            self.table_uri(table),
            table.schema,
            mode="ignore",
            partition_by=list(table.partition) or None,
            storage_options=self.storage_options,
        )

    def delta(self, table: Table, version: int | None = None) -> DeltaTable:
        """``table`` as delta-rs sees it, at ``version`` or the newest.

        Raises:
            JobError: the table is not there yet.
        """
        if not self.exists(table):
            raise JobError(f"there is no table {table.name} in {self.uri}: run the job that writes it first")
        return DeltaTable(self.table_uri(table), version=version, storage_options=self.storage_options)

    def version(self, table: Table) -> int | None:
        """The newest version of ``table``, ``None`` where it is not there."""
        return self.delta(table).version() if self.exists(table) else None

    def rows_changed(self, table: Table, since: int) -> bool:
        """Whether a commit after version ``since`` changed rows; compactions do not."""
        delta = self.delta(table)
        newer = delta.version() - since
        if newer == 0:
            return False
        commits = delta.history(newer) if newer > 0 else []
        return len(commits) < newer or any(commit.get("operation") not in UPKEEP for commit in commits)

    def logged(self, table: Table, version: int) -> bool:
        """Whether the log of ``table`` still has ``version``: Delta forgets versions after 30 days or more."""
        names = self.names(f"{table.name}/_delta_log")
        return any(name.startswith(f"{version:020}.") and name.endswith((".json", ".parquet")) for name in names)

    def whole(self, table: Table, version: int) -> bool:
        """Whether ``version`` of ``table`` can still be read: in the log, with all its files."""
        if not self.logged(table, version):
            return False
        paths = [self.path(f"{table.name}/{file}") for file in self.files(table, {}, version)]
        return all(info.type == fs.FileType.File for info in self.filesystem.get_file_info(paths))

    def rows(self, table: Table) -> int:
        """Rows of ``table`` from the transaction log alone."""
        return sum(self.delta(table).get_add_actions(flatten=True).column("num_records").to_pylist())

    def files(self, table: Table, where: Mapping[str, str], version: int | None = None) -> list[str]:
        """The files of the partitions that ``where`` picks, relative to the table, sorted."""
        actions = pa.table(self.delta(table, version).get_add_actions(flatten=True))
        for column, value in where.items():
            actions = actions.filter(ds.field(f"partition.{column}") == value)
        return sorted(actions["path"].to_pylist())

    def read(
        self,
        table: Table,
        columns: Sequence[str],
        *,
        where: ds.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Some columns of ``table`` in memory: for keys and codes, never for texts and images.

        ``__filename`` is the path of the row's file. A table that is not there reads as empty.
        """
        if not self.exists(table):
            fields = [pa.field(c, pa.string()) if c == "__filename" else table.schema.field(c) for c in columns]
            return pa.schema(fields).empty_table()
        dataset = self.delta(table, version).to_pyarrow_dataset()
        return pa.table(dataset.scanner(columns=list(columns), filter=where).to_table())

    def append(self, table: Table, rows: pa.Table) -> None:
        """Append ``rows`` in one commit, after checking them against the declaration."""
        write_deltalake(
            self.table_uri(table),
            table.conform(rows),
            mode="append",
            partition_by=list(table.partition) or None,
            storage_options=self.storage_options,
        )

    def path(self, relative: str) -> str:
        """The path of a file of the lake in :attr:`filesystem`."""
        return f"{self._root}/{relative}"

    def write_json(self, relative: str, content: Any) -> None:
        """Write a small JSON file whole: a reader sees the old one or the new one."""
        path = self.path(relative)
        self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(f"{path}.part") as stream:
            stream.write(json.dumps(content, indent=2, default=str).encode())
        self.filesystem.move(f"{path}.part", path)

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
        selector = fs.FileSelector(self.path(relative), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def delete(self, relative: str) -> None:
        """Delete a folder of the lake, if it is there."""
        if self.filesystem.get_file_info(self.path(relative)).type == fs.FileType.Directory:
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

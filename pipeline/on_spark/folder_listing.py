"""The files of a folder of pictures, with what says that each is still the same; for Spark's Python workers.

Nothing else is imported here: a night on which nothing changed waits for such a worker to start.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipeline.on_spark.pictures import NOT_THERE, ImageFault, local_path

FOLDER = pa.schema(
    [("folder", pa.string()), ("name", pa.string()), ("listed_stat", pa.string()), ("image_bytes", pa.int64())]
)
LISTED = 10_000  # files of a batch

Listed = tuple[str, str, str, int]


@dataclass(frozen=True)
class ListFolders:
    """The function that Spark maps over folders, each named as references name it, to list their files."""

    root: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of :data:`FOLDER`; the folder comes back as it was named."""
        for batch in batches:
            for folder in batch.column(0).to_pylist():
                files = list_pictures(folder, self.root)
                while part := list(islice(files, LISTED)):
                    yield pa.RecordBatch.from_arrays(list(map(pa.array, zip(*part, strict=True))), schema=FOLDER)


def list_pictures(folder: str, root: str) -> Iterator[Listed]:
    """Folder, name, stat and size of every file in ``folder`` that may be read: links that leave ``root`` are left out.

    Raises:
        OSError: a disk or mount fails. A folder that is not there, or that is not under ``root``, is empty.
    """
    try:
        entries = os.scandir(local_path(folder or ".", root))
    except ImageFault:
        return
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return
    with entries:
        for entry in entries:
            found = _regular_file(entry, root)
            if found is not None:
                yield folder, entry.name, f"{found.st_size}-{found.st_mtime_ns}", found.st_size


def _regular_file(entry: os.DirEntry[str], root: str) -> os.stat_result | None:
    try:
        entry.name.encode()
        if entry.is_symlink():
            local_path(entry.path, root)
        found = entry.stat()
    except (ImageFault, UnicodeEncodeError):  # leads outside, or has a name that no reference can spell
        return None
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return None
    return found if stat.S_ISREG(found.st_mode) else None

"""A small catalogue of lamps with a picture each, and what may happen to it between nights."""

import os
from collections.abc import Callable
from pathlib import Path

from test_extract import catalogue, jpeg

from pipeline.config.models import Config
from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, QUARANTINE

Row = dict[str, object]
Seen = Callable[[], list[str | None]]


def versions(config: Config) -> list[int | None]:
    return [Lake(config.lake).version(table) for table in (ITEMS, QUARANTINE)]


def swap(file: Path, colour: str) -> None:
    """Another picture of the same size and time."""
    before = file.stat()
    data = jpeg(file, colour)
    assert len(data) <= before.st_size
    file.write_bytes(data.ljust(before.st_size, b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(file: Path, seconds: int = 5) -> None:
    time = file.stat().st_mtime_ns + seconds * 10**9
    os.utime(file, ns=(time, time))


def lamps(folder: Path, count: int = 3, **settings: object) -> Config:
    """Items 0, 1, … with a picture each."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        jpeg(folder / f"{i}.jpg", ("red", "green", "blue")[i % 3])
        (folder / f"{i}.jpg").write_bytes((folder / f"{i}.jpg").read_bytes().ljust(2000, b"\0"))
    return catalogue(
        folder, [{"id": str(i), "title": f"lamp {i}", "image": f"{i}.jpg"} for i in range(count)], **settings
    )

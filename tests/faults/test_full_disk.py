"""A disk that fills up under a job: one message, tables that can be read, and a run with room that ends as ever."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from compare import contents
from shops import Jobs, Shops, run_process

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow]

DISK = 64 * 2**20
KIB = 2**10
# How much room a job finds: too little for what it writes, enough for what it writes first.
ROOM = {
    "extract": 200 * KIB,
    "encode": 100 * KIB,
    "train-tokenizer": 60 * KIB,
    "tokenize": 12 * KIB,
    "publish": 8 * KIB,
    "sequences": 24 * KIB,
    "train-ranker": 40 * KIB,
    "nightly": 40 * KIB,
}


@dataclass
class Disk:
    """A small file system, and the file that fills it."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, room: int) -> None:
        """Leave so many bytes."""
        free = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root on Linux alone")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("job", ROOM)
def test_a_job_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    job: str, shops: Shops, jobs: Jobs, disk: Disk, scratch: Path, found: list[tuple[str, ...]]
) -> None:
    before, expected = contents(shops.before(job)), contents(shops.after(job))
    folder = shutil.copytree(shops.before(job), disk.folder / "shop")
    disk.fill(ROOM[job])
    ended = run_process(job, folder, scratch)
    assert ended.status == 1, ended.output
    assert "Traceback" not in ended.output, ended.output
    last = ended.output.splitlines()[-1]
    assert last.startswith("hisam: "), ended.output
    assert "No space left on device" in last
    assert set(contents(folder)) <= set(before) | set(expected)

    disk.make_room()
    jobs(job, folder)
    actual = contents(folder)
    lost, doubled = expected - actual, actual - expected
    found.append((job, "disk full", "failed, exit status 1", str(lost.total()), str(doubled.total()), "–"))
    assert not lost
    assert not doubled

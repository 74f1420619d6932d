"""Which options tell Java of the archive; ``tests/demo/test_archive_classes.py`` has Java make and read one."""

from pathlib import Path

import pytest

from pipeline.on_spark import java_classes
from pipeline.on_spark.java_classes import reading_options, writing_options


def test_an_archive_is_read_where_there_is_one_and_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a folder" / "classes.jsa"
    monkeypatch.setattr(java_classes, "ARCHIVE", archive)
    assert reading_options() == ""
    archive.parent.mkdir()
    archive.touch()
    assert f'"-XX:SharedArchiveFile={archive}"' in reading_options("-Xmx8g")
    assert reading_options(f"-Xmx8g {writing_options(tmp_path / 'other')}") == ""

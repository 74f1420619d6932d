"""Artefacts of a lake: which was trained last, and their folders on this machine, of which nothing stays behind."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
from handmade import become_run, trained, writable
from writing import as_writer

from pipeline.lake.artefacts import fingerprints, local_folder, newest
from pipeline.lake.storage import Lake
from pipeline.on_ray.tokenize import load_tokenizer

ENCODERS = {"text": "e" * 16, "image": "f" * 16}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_newest_is_the_one_that_was_trained_last_in_a_copy_too(tmp_path: Path) -> None:
    lake = writable(tmp_path / "lake")
    first = trained(lake, ENCODERS, seed=0)
    become_run(lake)
    second = trained(lake, ENCODERS, seed=1)
    shutil.copytree(tmp_path / "lake", tmp_path / "copy")
    for time, name in enumerate((second, first)):
        for file in (tmp_path / "copy" / "tokenizers" / name).iterdir():
            os.utime(file, (time, time))
    copy = writable(tmp_path / "copy")
    for held in (lake, copy):
        assert fingerprints(held, "tokenizers") == [first, second]
        assert newest(held, "tokenizers") == second
    assert trained(copy, ENCODERS, seed=0) == first
    assert newest(copy, "tokenizers") == first


def test_the_copy_of_what_lies_in_a_store_is_there_for_a_block(s3: dict[str, str], temporary: Path) -> None:
    lake = as_writer(Lake.create(f"s3://lakes/{uuid.uuid4().hex}", s3))
    fingerprint = trained(lake, ENCODERS)
    with local_folder(lake, "tokenizers", fingerprint) as folder:
        assert temporary in folder.parents
        *found, run = sorted(path.name for path in folder.iterdir())
        assert found == ["config.json", "metrics.json", "model.safetensors"]
        assert lake.writer is not None
        assert run == f"trained-by-{lake.writer.run_id}.json"
    assert list(temporary.iterdir()) == []
    assert load_tokenizer(lake, fingerprint).fingerprint == fingerprint
    assert list(temporary.iterdir()) == []


def test_what_lies_in_a_folder_is_read_there(tmp_path: Path, temporary: Path) -> None:
    lake = writable(tmp_path / "lake")
    fingerprint = trained(lake, ENCODERS)
    with local_folder(lake, "tokenizers", fingerprint) as folder:
        assert folder == Path(lake.uri) / "tokenizers" / fingerprint
        assert list(temporary.iterdir()) == []
    assert load_tokenizer(lake, fingerprint).fingerprint == fingerprint

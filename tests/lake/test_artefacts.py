"""Artefacts of the lake: which of them was trained last."""

import os
import shutil
from pathlib import Path

from handmade import become_run, trained, writable

from pipeline.lake.artefacts import fingerprints, newest

ENCODERS = {"text": "1" * 16, "image": "2" * 16}


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

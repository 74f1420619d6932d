"""The vectors that a tokenizer trains on: which they are, in which order, and that no file of them stays."""

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from handmade import become_run, digest, writable

from pipeline.errors import JobError
from pipeline.lake.plans import Plan, plan_folder, save_plan
from pipeline.lake.storage import Lake
from pipeline.on_ray.training.vector_files import Vectors, content_keys, splits
from tokenizer.base.config import SHARE

ENCODERS = {"text": "0123456789abcdef", "image": "fedcba9876543210"}
WIDTHS = {"text": 12, "image": 10}


def content(i: int) -> str:
    return digest(str(i))[:32]


def vector(i: int, modality: str) -> list[float] | None:
    """Text and picture of content ``i`` share four factors; one in seven contents lacks its picture."""
    if modality == "image" and i % 7 == 0:
        return None
    factors = np.random.default_rng(i).standard_normal(4)
    seed = list(WIDTHS).index(modality)
    x = (factors @ np.random.default_rng(seed).standard_normal((4, WIDTHS[modality]))).astype(np.float16)
    return x.astype(np.float32).tolist()


def row(i: int, *, image: bool = True) -> dict[str, Any]:
    return {
        "content": content(i),
        "text_vector": vector(i, "text"),
        "image_vector": vector(i, "image") if image else None,
    }


SCHEMA = pa.schema([("content", pa.string()), *((f"{m}_vector", pa.list_(pa.float32())) for m in WIDTHS)])


def planned(lake: Lake, *files: Sequence[dict[str, Any]]) -> Vectors:
    """A plan that Spark might have written, of so many files."""
    run_id = become_run(lake)
    folder = plan_folder("train-tokenizer", run_id)
    for part, rows in enumerate(files):
        path = lake.path(f"{folder}/chunk=0/part={part}")
        lake.filesystem.create_dir(path)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), f"{path}/rows.parquet")
    count = sum(map(len, files))
    facts = {"encoders": ENCODERS, "contents": count}
    return Vectors(lake, save_plan(lake, Plan("train-tokenizer", run_id, count, 1, facts)))


def shop(folder: Path, count: int = 300, *, image: bool = True, seed: int | None = None) -> Vectors:
    """A lake with a plan of ``count`` contents; a ``seed`` shuffles them and cuts them into files."""
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    files = [order] if seed is None else np.split(order, [count // 5, count // 2])
    return planned(writable(folder), *([row(i, image=image) for i in file.tolist()] for file in files))


def test_vectors_do_not_depend_on_files(tmp_path: Path) -> None:
    plain, cut = shop(tmp_path / "a"), shop(tmp_path / "b", seed=3)
    assert np.array_equal(plain.keys_N, cut.keys_N)
    assert len(plain.keys_N) == 300
    a, b = plain.load(), cut.load()
    for m in WIDTHS:
        assert torch.equal(a.vectors(m), b.vectors(m))
        assert torch.equal(a.present(m), b.present(m))
    place = {int(key): i for i, key in enumerate(plain.keys_N)}
    for i, key in enumerate(content_keys(pa.array([content(i) for i in range(300)])).tolist()):
        for m, width in WIDTHS.items():
            expected = vector(i, m)
            assert bool(a.present(m)[place[key]]) == (expected is not None)
            assert a.vectors(m)[place[key]].tolist() == (expected or [0.0] * width)


def test_splits_are_runs_of_rows_that_depend_on_the_hash_alone() -> None:
    keys_N = np.sort(content_keys(pa.array([content(i) for i in range(20_000)])))
    plain, watched = splits(keys_N, watched=False), splits(keys_N, watched=True)
    assert plain.held_out == watched.held_out
    assert plain.validation.start == plain.validation.stop
    assert (plain.held_out.start, plain.held_out.stop, plain.train.stop) == (0, plain.train.start, 20_000)
    assert (watched.validation.start, watched.validation.stop) == (watched.held_out.stop, watched.train.start)
    for part in (plain.held_out, watched.validation):
        assert abs((part.stop - part.start) / 20_000 - SHARE) < 0.01
    half_N = keys_N[::2]
    assert set(half_N[splits(half_N, watched=True).held_out]) <= set(keys_N[plain.held_out])


def test_a_modality_that_no_content_has_is_one_number_wide(tmp_path: Path) -> None:
    vectors = shop(tmp_path, 50, image=False).load()
    assert vectors.image_ND.shape == (50, 1)
    assert not bool(vectors.has_image_N.any())
    assert bool(vectors.has_text_N.all())


def test_vectors_of_two_lengths_are_refused(tmp_path: Path) -> None:
    vectors = planned(writable(tmp_path), [row(i) for i in range(20)], [row(99) | {"text_vector": [1.0, 2.0]}])
    with pytest.raises(JobError, match=r"text_vector has vectors of \[\d+\] numbers where (12|2) are expected"):
        vectors.load()


def test_no_file_stays_and_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    vectors = shop(tmp_path / "lake", 50)
    assert len(vectors.load()) == 50
    assert list(temporary.iterdir()) == []

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(JobError, match=rf"need 0\.0 GB in {temporary} \(No space left on device\): make room"):
        vectors.load()

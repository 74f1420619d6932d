"""The vectors that a tokenizer trains on: which they are, in which order, and that no file of them stays."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.lake.live import live_items
from pipeline.lake.storage import Lake
from pipeline.on_ray.training.vector_files import SHARE, Vectors, content_keys, live_keys, live_vectors, splits
from schemas.tables import EMBEDDINGS, ITEMS

ENCODER = "0123456789abcdef"
WIDTHS = {"text": 12, "image": 10}


def content(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def item(item_id: str, content_hash: str, run_id: str = "1", *, deleted: bool = False) -> dict[str, object]:
    now = {"extracted_at": datetime.now(UTC)}
    return {"item_id": item_id, "content_hash": content_hash, "deleted": deleted, "run_id": run_id, **now}


def embedding(i: int, encoder: str = ENCODER, *, image: bool = True) -> dict[str, object]:
    """Text and picture of content ``i`` share four factors; one in seven contents lacks its picture."""
    factors = np.random.default_rng(i).standard_normal(4)
    row: dict[str, object] = {"content_hash": content(i), "encoder": encoder}
    for seed, (modality, width) in enumerate(WIDTHS.items()):
        x = (factors @ np.random.default_rng(seed).standard_normal((4, width))).astype(np.float16)
        absent = modality == "image" and (not image or i % 7 == 0)
        row[f"{modality}_embedding"] = None if absent else x.astype(np.float32).tolist()
    return row


def append(lake: Lake, items: Sequence[dict[str, object]] = (), *files: Sequence[dict[str, object]]) -> None:
    for table, chunks in ((ITEMS, [items]), (EMBEDDINGS, files)):
        lake.create(table)
        for rows in chunks:
            lake.append(table, pa.Table.from_pylist(list(rows), schema=table.schema))


def shop(
    folder: Path, count: int = 300, encoder: str = ENCODER, *, image: bool = True, seed: int | None = None
) -> Lake:
    """A lake of ``count`` contents; a ``seed`` shuffles their vectors, cuts them into more files, repeats some."""
    lake, order = Lake(str(folder)), np.arange(count)
    files = [order]
    if seed is not None:
        order = np.random.default_rng(seed).permutation(count)
        files = [*np.split(order, [count // 5, count // 2]), order[: count // 3]]
    rows = [[embedding(int(i), encoder, image=image) for i in file] for file in files]
    append(lake, [item(f"item-{i}", content(i)) for i in range(count)], *rows)
    return lake


def of(lake: Lake, encoder: str = ENCODER) -> Vectors:
    return live_vectors(lake, encoder, lake.version(ITEMS), lake.version(EMBEDDINGS))


def test_vectors_do_not_depend_on_files_and_repeated_rows_count_once(tmp_path: Path) -> None:
    plain, cut = of(shop(tmp_path / "a")), of(shop(tmp_path / "b", seed=3))
    assert np.array_equal(plain.keys_N, cut.keys_N)
    assert len(plain.keys_N) == 300
    a, b = plain.spool(), cut.spool()
    for m in WIDTHS:
        assert torch.equal(a.vectors(m), b.vectors(m))
        assert torch.equal(a.present(m), b.present(m))
    row = {int(key): i for i, key in enumerate(plain.keys_N)}
    hashes = [content(i) for i in range(300)]
    for i, key in enumerate(content_keys(pa.array(hashes)).tolist()):
        expected = embedding(i)
        for m in WIDTHS:
            vector = expected[f"{m}_embedding"]
            assert bool(a.present(m)[row[key]]) == (vector is not None)
            assert a.vectors(m)[row[key]].tolist() == (vector or [0.0] * WIDTHS[m])


def test_only_live_contents_under_the_encoder(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    items = [item("a", content(0)), item("b", content(1)), item("same as b", content(1)), item("c", content(2))]
    items += [item("gone", content(3)), item("edited", content(4)), item("not encoded yet", content(9))]
    append(lake, items, [embedding(i) for i in range(6)], [embedding(i, "f" * 16) for i in range(8)])
    append(lake, [item("gone", content(3), "2", deleted=True), item("edited", content(5), "2")])
    assert set(of(lake).keys_N) == set(content_keys(pa.array([content(i) for i in (0, 1, 2, 5)])))
    with pytest.raises(JobError, match=r"no live item has a vector under the configured encoders .*: run encode first"):
        of(lake, "e" * 16)
    with pytest.raises(JobError, match="there is no table"):
        of(Lake(str(tmp_path / "empty")))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nights=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.booleans()), unique_by=lambda r: r[0], min_size=1),
        min_size=1,
        max_size=4,
    ),
    shuffled=st.randoms(use_true_random=False),
)
def test_live_contents_are_those_of_live_items(
    nights: list[list[tuple[int, int, bool]]], shuffled: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    numbered = list(enumerate(nights))
    shuffled.shuffle(numbered)  # files in an order of their own
    for night, rows in numbered:
        append(lake, [item(f"item-{i}", content(c), f"run-{night}", deleted=gone) for i, c, gone in rows])
    assert np.array_equal(live_keys(lake), np.unique(content_keys(live_items(lake)["content_hash"].combine_chunks())))


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
    vectors = of(shop(tmp_path, 50, image=False)).spool()
    assert vectors.image_ND.shape == (50, 1)
    assert not bool(vectors.has_image_N.any())
    assert bool(vectors.has_text_N.all())


def test_vectors_of_two_lengths_are_refused(tmp_path: Path) -> None:
    lake = shop(tmp_path, 20)
    append(lake, [item("odd", content(99))], [embedding(99) | {"text_embedding": [1.0, 2.0]}])
    with pytest.raises(JobError, match=r"text_embedding has vectors of \[\d+\] numbers where (12|2) are expected"):
        of(lake).spool()


def test_no_file_stays_and_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    vectors = of(shop(tmp_path / "lake", 50))
    spooled = vectors.spool()
    assert len(spooled) == 50
    assert list(temporary.iterdir()) == []

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(JobError, match=rf"need 0\.0 GB in {temporary} \(No space left on device\): make room"):
        vectors.spool()

"""Readers beside a night that writes, is killed and runs again: they see one release whole, or the next one whole."""

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compare import contents
from kills import ENCODE, TOKENIZE, at
from shops import Shops, config_of, run_process

from pipeline.lake.storage import Lake
from schemas.tables import ITEMS, SEMANTIC_IDS, VECTORS

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.slow]

View = tuple[int, frozenset[tuple[str, ...]]]


def view(lake: Lake) -> View:
    """What a reader sees: the number of the release, and the IDs of its items."""
    rows = lake.released_ids().to_table(["release", "item_id", "sid", "item_hash"]).to_pylist()
    (release,) = {row.pop("release") for row in rows}
    return release, frozenset(tuple(map(str, row.values())) for row in rows)


def sizes(lake: Lake) -> tuple[int, ...]:
    return tuple(lake.read(table, table.key).num_rows for table in (ITEMS, VECTORS, SEMANTIC_IDS))


def read_until(stop: threading.Event, lake: Lake) -> tuple[Counter[View], set[tuple[int, ...]]]:
    """All that a reader sees who looks again and again, and all sizes that the tables have."""
    views: Counter[View] = Counter()
    found = set()
    while not stop.wait(0.1):
        views[view(lake)] += 1
        found.add(sizes(lake))
    return views, found


def test_a_reader_sees_whole_releases_alone_while_a_night_runs_dies_and_runs_again(
    shops: Shops, tmp_path: Path, scratch: Path, found: list[tuple[str, ...]]
) -> None:
    folder = shutil.copytree(shops.before("nightly"), tmp_path / "shop")
    lake, after = Lake(config_of(folder).lake), Lake(config_of(shops.after("nightly")).lake)
    old, new = view(lake), view(after)
    small, large = sizes(lake), sizes(after)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_until, stop, lake)
        try:
            for fault in (at(ENCODE, "after"), at(TOKENIZE, "after")):
                assert run_process("nightly", folder, scratch, fault).status == -9
                (scratch / "nightly-struck").unlink()
            assert view(lake) == old
            ended = run_process("nightly", folder, scratch)
            assert ended.status == 0, ended.output
        finally:
            stop.set()
        views, seen = reader.result()
    assert view(lake) == new
    assert set(views) <= {old, new}
    assert views[old] > 10
    # Of each table either none of the night's rows or all of them: each is one commit here.
    assert all(size in (was, now) for at_once in seen for size, was, now in zip(at_once, small, large, strict=True))
    assert contents(folder) == contents(shops.after("nightly"))
    found.append(("nightly", f"driver, twice, under a reader ({views.total()} reads)", "died", "0", "0", "–"))

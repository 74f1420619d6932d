"""IDs under another tokenizer from stored vectors, and the report on moving to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import TOKENIZER, config_of, described, encoded, extracted, identified, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.lake.live import Chunk
from pipeline.on_ray.backfill import backfill
from pipeline.release.migration import SAMPLE, by_level, matched, migration
from pipeline.release.releases import publish, released
from scipy.optimize import linear_sum_assignment
from scipy.stats import contingency
from sklearn.metrics import adjusted_mutual_info_score

import pipeline.on_ray.tokenize as tokenizing
from jobs.tables import show_migration
from pipeline.config.models import Config
from pipeline.errors import JobError
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from schemas.tables import SEMANTIC_IDS

OLD, NEW = "1" * 16, "2" * 16  # encoders
NIGHT = {f"i{n}": f"content {n % 50}" for n in range(60)}
OPEN = {"max_collision_rate": 1, "min_perplexity": 0, "max_without_image": 1}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Configured are encoders that this machine does not have: whoever looks for them fails."""
    absent = {"model": "nobody/has-this-model"}
    return config_of(tmp_path, gates=OPEN, encoders={"text": absent, "image": absent, "commit_rows": 100})


def ids_of(lake: Lake, tokenizer: str) -> list[tuple[Any, ...]]:
    rows = lake.read(SEMANTIC_IDS, ["item_id", "content_hash", "tokenizer", "sid", "disambiguator"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows if row["tokenizer"] == tokenizer)


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_backfill_needs_no_encoder_goes_on_and_reports(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake(config.lake)
    extracted(lake, NIGHT)
    contents = sorted(set(NIGHT.values()))
    encoded(lake, contents, NEW, files=2)  # hence two chunks
    first, second = trained(lake, OLD), trained(lake, NEW, seed=1, shared_levels=3)
    identified(lake, first, {item: (n % 8, n // 8, 0, None) for n, item in enumerate(NIGHT)}, NIGHT)
    with Run("backfill", config) as run:
        backfill(run, first)
    assert run.counts == {"rows_in": 60, "skipped": 60, "unencoded": 0, "rows_out": 0}
    assert "migration" not in run.metrics  # nothing is released
    with Run("publish", config) as run:
        assert publish(run, first)
    before = released(lake)

    whole, done = tokenizing._tokenize_chunk, []

    def dies_after_one(run: Run, chunk: Chunk, tokenizer: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(chunk.rows.num_rows)
        whole(run, chunk, tokenizer)

    chunks = tokenizing.chunks
    monkeypatch.setattr(tokenizing, "chunks", lambda rows, _: chunks(rows, 1))
    monkeypatch.setattr(tokenizing, "_tokenize_chunk", dies_after_one)
    with pytest.raises(KeyboardInterrupt), Run("backfill", config) as run:
        backfill(run, second)
    assert 0 < len(ids_of(lake, second)) == done[0] < 60
    monkeypatch.undo()
    with Run("backfill", config) as run:
        backfill(run, second)
    assert (run.counts["skipped"], run.counts["rows_out"]) == (done[0], 60 - done[0])
    whole_ids = ids_of(lake, second)
    assert len(whole_ids) == len({row[0] for row in whole_ids}) == 60
    assert released(lake) == before

    found = run.metrics["migration"]
    assert (found["released"], found["tokenizer"], found["items"]) == (first, second, 60)
    assert [level["slot"] for level in found["levels"]] == ["shared_0", "shared_1", "text_0", "image_0"]
    assert [level["items"] for level in found["levels"]] == [60, 60, 60, 0]  # the released ones have no picture
    show_migration(found)
    said = capsys.readouterr().out
    assert all(word in said for word in (first, second, "shared_1", "60 have IDs of both"))

    with Run("backfill", config) as run:
        backfill(run, second)
    assert (run.counts["skipped"], run.counts["rows_out"]) == (60, 0)
    assert ids_of(lake, second) == whole_ids


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_vectors_that_are_missing_are_said(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    lake = Lake(config.lake)
    extracted(lake, NIGHT)
    encoded(lake, ["content 0", "content 1"], OLD)
    tokenizer = trained(lake, NEW)
    with (
        Run("backfill", config) as run,
        pytest.raises(JobError, match=f"{tokenizer} .*encoders {NEW}.*of encoders {OLD}"),
    ):
        backfill(run, tokenizer)
    encoded(lake, ["content 0", "content 1"], NEW)
    with Run("backfill", config) as run:
        backfill(run, tokenizer)
    assert (run.counts["rows_out"], run.counts["unencoded"]) == (4, 56)
    assert f"56 live items have no vectors of encoders {NEW}" in caplog.text


A, B = "a" * 16, "b" * 16


def test_a_migration_counts_items_by_what_they_have(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lake = Lake(config.lake)
    night = {f"i{n}": f"content {n}" for n in range(8)} | {"gone": "x"}
    extracted(lake, night)
    for tokenizer in (A, B):
        described(lake, tokenizer)
    codes = {f"i{n}": (n // 2, n % 2, n, n if n % 2 else None) for n in range(7)}
    renamed = {item: ((s + 3) % 8, r, 7 - t, i) for item, (s, r, t, i) in codes.items()}
    renamed["i1"] = (5, *renamed["i1"][1:])  # its group is the other one now: with i4 and i5
    identified(lake, A, codes | {"gone": (0, 0, 0, 0)}, night)
    identified(lake, B, {item: renamed[item] for item in ("i6", "i5", "i4", "i3", "i2", "i1")}, night)
    extracted(lake, {"gone": None, "i0": "edited"})
    identified(lake, B, {"i0": (0, 0, 0, 0)}, {"i0": "edited"})
    found = migration(lake, A, B)
    counts = {name: found[name] for name in ("items", "released_alone", "tokenizer_alone", "without_either")}
    assert counts == {"items": 6, "released_alone": 0, "tokenizer_alone": 1, "without_either": 1}
    levels = {level["slot"]: level for level in found["levels"]}
    shared = levels["shared_0"]
    assert (shared["items"], shared["renumbered"], shared["moved"]) == (6, 1, pytest.approx(1 / 6))
    assert 0 < shared["prefix_information"] < 1
    assert (levels["shared_1"]["renumbered"], levels["shared_1"]["moved"]) == (0, 0)
    assert (levels["text_0"]["renumbered"], levels["text_0"]["moved"]) == (1, 0)
    assert (levels["image_0"]["items"], levels["image_0"]["renumbered"]) == (3, 0)
    assert found["collision_rate"] == {A: 0, B: 0}


def test_parts_whose_levels_differ_are_left_out(tmp_path: Path) -> None:
    lake = Lake(config_of(tmp_path).lake)
    night = {"i0": "x", "i1": "y"}
    extracted(lake, night)
    described(lake, A)
    described(lake, B, TOKENIZER.model_copy(update={"shared_levels": 1, "text_levels": 2}))
    codes = {"i0": (1, 2, 3, None), "i1": (2, 2, 3, None)}
    identified(lake, A, codes, night)
    identified(lake, B, codes, night, shared=[5], text=[1, 2])
    found = migration(lake, A, B)["levels"]
    assert [(level["slot"], level["items"]) for level in found] == [("shared_0", 2), ("image_0", 0)]
    assert (found[0]["renumbered"], found[0]["moved"], found[0]["prefix_information"]) == (1, 0.5, 0)


CODES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=60)


@settings(deadline=None)
@given(CODES)
def test_the_best_renaming_is_that_of_the_dense_assignment(pairs: list[tuple[int, int]]) -> None:
    old_N, new_N = np.array(pairs, np.int16).T
    table = contingency.crosstab(old_N, new_N).count
    assert matched(old_N, new_N) == table[linear_sum_assignment(table, maximize=True)].sum()


def test_figures_of_a_level_against_the_library_and_blind_to_numbering() -> None:
    rng = np.random.default_rng(0)
    old_NL = rng.integers(0, 6, (400, 3)).astype(np.int16)
    names = rng.permutation(6).astype(np.int16)
    assert [
        (f["moved"], f["prefix_information"]) for f in by_level("shared", old_NL, names[old_NL], np.arange(400))
    ] == [(0, pytest.approx(1))] * 3
    new_NL = np.where(rng.random((400, 3)) < 0.7, names[old_NL], rng.integers(0, 6, (400, 3))).astype(np.int16)
    prefixes = [[str(row[:2]) for row in codes_NL] for codes_NL in (old_NL, new_NL)]
    figures = by_level("shared", old_NL, new_NL, np.arange(400))[1]
    assert figures["prefix_information"] == pytest.approx(adjusted_mutual_info_score(*prefixes))
    assert figures["renumbered"] == (old_NL[:, 1] != new_NL[:, 1]).mean()
    assert 0.15 < figures["moved"] < 0.3


def test_mutual_information_looks_at_the_same_items_in_any_order() -> None:
    rng = np.random.default_rng(0)
    count = SAMPLE + 500
    hash_N = rng.permutation(count)
    old_NL = rng.integers(0, 6, (count, 1)).astype(np.int16)
    new_NL = np.where(hash_N[:, None] < SAMPLE, old_NL, 0)
    order = rng.permutation(count)
    for found in (by_level("s", old_NL, new_NL, hash_N), by_level("s", old_NL[order], new_NL[order], hash_N[order])):
        assert found[0]["prefix_information"] == pytest.approx(1)
        assert found[0]["renumbered"] == pytest.approx(500 / count * 5 / 6, rel=0.1)

"""Frozen scores against shorter histories, what moves a score, and what the scorer says of an impression."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from slow_ids import split
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows

from pipeline.on_ray.training.scoring import WindowScorer, _missing
from ranker.architectures import BASELINES, build
from ranker.artefact import TrainedRanker
from ranker.baselines.like_rate import LikeRate, fit_like_rate
from ranker.config import RankerConfig
from ranker.frozen import frozen_logits
from ranker.windows import collate, earlier, flat, padded
from schemas.semantic_id import Layout

ARCHS = ("hmat", *BASELINES)
SHARED = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])  # times of events, over and over


def simultaneous_windows(users: int) -> pa.Table:
    """Windows in which several events share a time, and requests begin with a time."""
    windows = taste_windows(users, seed=6)
    rows = windows.to_pylist()
    for row in rows:
        place = np.arange(len(row["labels"]))
        row["times"] = ((place // 10) * 10 + SHARED[place % 10]).tolist()
        first = (place // 10) * 10 + np.array([0, 0, 0, 0, 0, 0, 6, 6, 6, 6])[place % 10]  # requests of two times
        row["requests"] = row["known"] = first.tolist()
        row["item_ids"], row["loss_mask"] = [f"i{n}" for n in place], [True] * len(place)
    return pa.Table.from_pylist(rows, windows.schema)


@pytest.mark.parametrize("arch", ARCHS)
def test_frozen_scores_are_those_after_a_shorter_history(arch: str) -> None:
    windows = simultaneous_windows(5)
    model = build(RankerConfig.model_validate({"arch": arch, "dim": 16, "heads": 2, "seed": 3}), LAYOUT).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch, known = collate(windows, LAYOUT), padded(windows, flat(windows["known"]).astype(np.int64))
    with torch.inference_mode():
        logits = frozen_logits(model, batch, known)
        for window, item in ((0, 3), (0, 5), (2, 2), (3, 4), (4, 5)):
            history = int(known[window, item])
            rows = torch.tensor([*range(history), item])
            tokens, items, labels = (x[window : window + 1, rows] for x in (batch.tokens, batch.items, batch.labels))
            seen = torch.cat([batch.seen[window, :history], torch.tensor([history])])[None]
            alone = model(tokens, items, labels, None, seen)[0, -1]
            torch.testing.assert_close(logits[window, item], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_nothing_of_an_events_own_time_or_later_moves_its_score(tmp_path: Path, arch: str) -> None:
    """Labels of the scored event, of simultaneous and of future events are flipped, and future items are others."""
    scorer, windows = scorer_of(tmp_path, arch), simultaneous_windows(12)
    known = {tuple(keys): scores for *keys, scores in scored_by(scorer, windows)}
    for place in (0, 3, 6, 10, 13):
        rows = windows.to_pylist()
        for row in rows:
            times, codes = np.array(row["times"]), np.array(row["tokens"]).reshape(-1, LAYOUT.slots)
            scored, later = times == times[min(place, len(times) - 1)], times > times[min(place, len(times) - 1)]
            codes[later] = 0
            row["labels"] = np.where(scored | later, 1 - np.array(row["labels"]), row["labels"]).tolist()
            row["item_hashes"] = (np.array(row["item_hashes"]) + later).tolist()
            row["tokens"], row["loss_mask"] = codes.ravel().tolist(), scored.tolist()
        found = scored_by(scorer, pa.Table.from_pylist(rows, windows.schema))
        assert len(found) >= len(rows)
        for *keys, scores in found:
            assert scores == pytest.approx(known[tuple(keys)], abs=1e-5)


def scored_by(scorer: WindowScorer, windows: pa.Table) -> list[tuple[str, str, tuple[float, float]]]:
    """User and item of every impression, its frozen and its streamed score."""
    columns = (scorer(windows)[name].to_pylist() for name in ("user_id", "item_id", "score", "streamed"))
    return [(user, item, (frozen, running)) for user, item, frozen, running in zip(*columns, strict=True)]


def scorer_of(folder: Path, arch: str = "hmat") -> WindowScorer:
    config = RankerConfig.model_validate({"arch": arch, "dim": 16, "layers": 2, "heads": 2, "max_items": 40})
    model = build(config, LAYOUT)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    TrainedRanker(config, LAYOUT, TOKENIZER, model.state_dict()).save(folder, {})
    threads = torch.get_num_threads()
    scorer = WindowScorer(lambda: nullcontext(folder), TOKENIZER)
    torch.set_num_threads(threads)
    return scorer


def test_the_scorer_says_what_an_impression_was_seen_after_and_lacks(tmp_path: Path) -> None:
    windows = taste_windows(30, seed=4)
    scored = scorer_of(tmp_path)(windows)
    expected: list[tuple[Any, ...]] = []
    for row in windows.to_pylist():
        codes = np.array(row["tokens"]).reshape(-1, LAYOUT.slots)
        for position, (item, counted) in enumerate(zip(row["item_ids"], row["loss_mask"], strict=True)):
            lacks = "image" if split(codes[position].tolist(), LAYOUT).image is None else "none"
            if counted:
                expected.append((row["user_id"], row["known"][position], item, lacks))
    found = zip(*(scored[name].to_pylist() for name in ("user_id", "history", "item_id", "missing")), strict=True)
    assert sorted(found) == sorted(expected)
    assert scored.schema.field("history").type == pa.int32()


@pytest.mark.parametrize(
    ("layout", "tokens", "expected"),
    [
        (Layout(1, 1, 1, 4), [[0, 1, 2], [0, 4, 2], [0, 1, 4]], ["none", "text", "image"]),
        (Layout(1, 0, 2, 4), [[0, 1, 2], [0, 4, 4]], ["none", "image"]),
        (Layout(2, 0, 0, 4), [[0, 1]], ["none"]),
    ],
)
def test_a_modality_without_levels_is_never_missing(
    layout: Layout, tokens: list[list[int]], expected: list[str]
) -> None:
    assert _missing(torch.tensor(tokens), layout).to_pylist() == expected


def test_the_like_rate_is_smoothed_and_a_level_is_of_what_is_known() -> None:
    windows = taste_windows(20, seed=4)
    mask, labels = flat(windows["loss_mask"]).astype(bool), flat(windows["labels"])
    rule = fit_like_rate(lambda: iter([windows.slice(0, 7), windows.slice(7)]))
    assert rule.mean == pytest.approx(labels[mask].mean())
    seen, count, clicks = earlier(windows), flat(windows["train_count"]), flat(windows["train_clicks"])
    rates = (clicks + 10 * rule.mean) / (count + 10)
    np.testing.assert_allclose(rule(windows, seen), rates)
    leveled, start = LikeRate(rule.mean, levels=True)(windows, seen), 0
    for length in pa.compute.list_value_length(windows["labels"]).to_pylist():
        for place in range(length):
            past = slice(start, start + int(seen[start + place]))
            level = (labels[past] - rates[past]).sum() / (seen[start + place] + 5)
            expected = np.clip(rates[start + place] + level, 0.005, 0.995)
            assert leveled[start + place] == pytest.approx(expected)
        start += length

"""Ranking candidates for users: the best of each are those of the model itself; memories come back from their files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scored_shop import ITEMS, scored_shop, stored
from test_ranker_data import LAYOUT

from jobs.score import ids_in
from pipeline.config.models import Config
from pipeline.errors import ConfigError, JobError
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray import score as job
from pipeline.on_ray.score import score
from ranker.artefact import load
from ranker.hmat.collaborative import RECENT
from ranker.hmat.memory_rows import unpack
from ranker.hmat.model import HMAT
from ranker.windows import collate
from schemas.tables import SEQUENCES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return scored_shop(tmp_path_factory.mktemp("shop"))


TASTE = {"collaborative": {"factors": 3, "content_components": 2, "met_components": 2}, "decoded": ["text"]}


@pytest.mark.parametrize(
    ("memories", "settings"), [pytest.param(False, {}, marks=pytest.mark.slow), (True, TASTE)], ids=["plain", "taste"]
)
def test_the_best_of_every_user_are_those_of_the_model(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memories: bool, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(job, "PAIRS", 100)  # several stretches of candidates
    ranker, to = stored(config, tmp_path, **settings), tmp_path / "to"
    users = [*(f"u{n}" for n in range(28)), "u3", "stranger"]
    with Run("score", config, writes=False) as run:
        score(run, ranker, users, [*ITEMS[::-1], "gone", "i1"], to, 5, memories)
    counts = {"users": 28, "unknown_users": 1, "items": 40, "unknown_items": 2, "rows_out": 28 * 5}
    assert {name: run.counts[name] for name in counts} == counts
    assert (run.metrics["unknown_users"], run.metrics["unknown_items"]) == (["stranger"], ["gone", "i1"])
    found = pq.read_table(to / "top").sort_by([("user_id", "ascending"), ("rank", "ascending")])
    assert found.num_rows == 28 * 5
    best = {user: found.filter(pa.compute.equal(found["user_id"], user)) for user in set(users) - {"stranger"}}
    model = load(tmp_path / "ranker").model()
    assert isinstance(model, HMAT)
    lake = Lake.open(config.lake)
    columns = job.find_candidates(Run("score", config, writes=False), load(tmp_path / "ranker"), ITEMS)
    hashes, tokens = torch.from_numpy(columns.hashes_C)[None], torch.from_numpy(columns.tokens_CT)[None]
    windows = lake.read(SEQUENCES, SEQUENCES.schema.names)
    for user, rows in best.items():
        mask = pa.compute.and_(pa.compute.equal(windows["user_id"], user), windows["latest"])
        history = collate(windows.filter(mask), LAYOUT)
        with torch.inference_mode():
            scores = model.score(model.remember(*history.inputs), tokens, hashes)[0].sigmoid()
        order = scores.sort(descending=True).indices[:5].tolist()
        assert rows["item_id"].to_pylist() == [ITEMS[place] for place in order]
        assert rows["rank"].to_pylist() == [1, 2, 3, 4, 5]
        assert rows["score"].to_pylist() == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert (to / "memories.json").exists() == memories
    if memories:
        described = json.loads((to / "memories.json").read_text())
        kept = pq.read_table(to / "memories").sort_by("user_id")
        items = kept["items"].to_pylist()
        layers, both, heads, _, head = described["shape"]
        for blob, n in zip(kept["memory"].to_pylist(), items, strict=True):
            taste = model.collaborative.precision_F.numel() - 1 + len(RECENT)
            assert np.frombuffer(blob, described["dtype"]).size == layers * both * heads * (n + 1) * head + taste
        memory, place = unpack(kept["memory"].to_pylist(), items, model.config)
        with torch.inference_mode():
            shape = len(items), len(ITEMS)
            scores = model.score(memory, tokens.expand(*shape, -1), hashes.expand(shape), place[:, None].expand(shape))
        for user, own in zip(kept["user_id"].to_pylist(), scores.sigmoid(), strict=True):
            assert best[user]["score"].to_pylist() == pytest.approx(
                own.sort(descending=True).values[:5].tolist(), abs=1e-5
            )


def test_what_cannot_be_scored_is_said(config: Config, tmp_path: Path) -> None:
    ranker, flat = stored(config, tmp_path / "a"), stored(config, tmp_path / "b", arch="flat")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    faults = [
        ((ranker, ["u1"], ITEMS, tmp_path / "full"), ConfigError, "there is something already"),
        ((flat, ["u1"], ITEMS, tmp_path / "to"), JobError, "of arch flat, which has no memory"),
        ((ranker, ["v1", "v2"], ITEMS, tmp_path / "to"), JobError, "none of the 2 users have a history.* as v1, v2"),
        ((ranker, ["u1"], ["x"], tmp_path / "to"), JobError, "none of the 1 candidates are released.* Such as x"),
        ((ranker, [], ITEMS, tmp_path / "to"), JobError, "no users were given"),
    ]
    for arguments, kind, said in faults:
        with pytest.raises(kind, match=said), Run("score", config, writes=False) as run:
            score(run, *arguments, 3, False)
    assert not (tmp_path / "to").exists()


def test_ids_are_read_as_strings(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,age\n007,3\n42,5\n")
    assert ids_in(tmp_path / "users.csv", "--users", "user_id") == ["007", "42"]
    pq.write_table(pa.table({"item_id": [7, None, 8]}), tmp_path / "items.parquet")
    assert ids_in(tmp_path / "items.parquet", "--candidates", "item_id") == ["7", "8"]
    for name in ("users.csv", "items.parquet", "none.csv"):
        with pytest.raises(ConfigError, match=f"--users .*{name}: no column who can be read"):
            ids_in(tmp_path / name, "--users", "who")

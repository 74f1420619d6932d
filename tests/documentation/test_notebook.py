"""The notebook, and the examples that want a lake, on one that is made by hand: no engine starts."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from handmade import become_run, config_of, digest, extracted
from pages import NOTEBOOK, ROOT, fenced
from slow_ids import spelled, split

from pipeline.demo.texts import write
from pipeline.lake.artefacts import store
from pipeline.lake.commit import append
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.builtin import TextDescriptor
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.config import RankerConfig
from schemas.semantic_id import item_hash
from schemas.tables import RELEASED_IDS, SEQUENCES
from tokenizer import fit
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings

pytestmark = pytest.mark.slow

TOKENIZER = TokenizerConfig(
    shared_levels=2, text_levels=1, image_levels=1, codebook_size=8, dim=16, hidden=32, min_steps=40
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake of 80 released items, a trained tokenizer, a ranker of random weights and one history."""
    folder = tmp_path_factory.mktemp("notebook")
    lake = Lake.create(config_of(folder).lake)
    (folder / "hisam.yaml").write_text("lake: lake\ncatalog: {source: {path: x, format: csv}, id: id, text: '{t}'}\n")
    rng = np.random.default_rng(0)
    night = {f"p{n:02}": ". ".join(write(n % 16, n % 24, rng)) for n in range(80)}
    extracted(lake, night)
    text_ND = torch.from_numpy(np.asarray(TextDescriptor()(list(night.values()))))
    items = Embeddings(text_ND, torch.randn(80, 12), torch.ones(80, dtype=torch.bool), torch.arange(80) % 4 > 0)
    tokenizer = fit(items, TOKENIZER)
    named = artefact.save(tokenizer, folder / "tokenizer", {}, {"text": "e", "image": "f"})
    store(lake, "tokenizers", folder / "tokenizer", named)
    codes_NS = tokenizer.encode(items.text_ND, items.image_ND, items.has_text_N, items.has_image_N)
    released = []
    for (item, text), row in zip(night.items(), codes_NS.tolist(), strict=True):
        codes = split(row, tokenizer.layout)
        parts = {"shared": codes.shared, "text": codes.text, "image": codes.image, "sid": spelled(codes)}
        released.append(
            {"item_id": item, "item_hash": item_hash(item), "content": digest(text)[:32], "tokenizer": named}
            | {"release": 1, "has_text": True, "has_image": codes.image is not None}
            | parts
        )
    become_run(lake)
    append(lake, RELEASED_IDS, pa.Table.from_pylist(released, RELEASED_IDS.schema))
    window = {
        "user_id": "u",
        "window": 0,
        "item_hashes": [row["item_hash"] for row in released[:9]],
        "tokens": codes_NS[:9].flatten().tolist(),
        "labels": [1, 0] * 4 + [1],
        "times": range(9),
        "loss_mask": [True] * 9,
        "train_count": [1] * 9,
        "train_clicks": [0] * 9,
        "latest": True,
        "split": "train",
        "tokenizer": named,
    }
    append(lake, SEQUENCES, pa.Table.from_pylist([window], SEQUENCES.schema))
    config = RankerConfig(dim=16, heads=2, layers=1)
    trained = TrainedRanker(config, tokenizer.layout, named, build(config, tokenizer.layout).state_dict())
    trained.save(folder / "ranker", {})
    store(lake, "rankers", folder / "ranker", trained.fingerprint)
    return folder


def test_the_notebook_runs(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("HISAM_CONFIG", str(shop / "hisam.yaml"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in notebook.cells]
    assert any("release 1: 80 items" in text for text in printed)
    assert re.search(r"9 events of user u in \d+ KiB\n(.*\n){5}the new item is at place \d+ of 81", printed[-1])


def test_the_examples_that_want_a_lake_run(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    examples = [code for code in fenced(ROOT / "docs/api.md", "python") if "load_config(" in code]
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "docs/api.md", "exec"), names := {})
    assert names["codes"].shape == (1, 4)
    assert names["codes"][0, 3] == TOKENIZER.layout().absent

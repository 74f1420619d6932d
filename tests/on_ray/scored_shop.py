"""A lake made by hand that rankers can be measured on and score for: 40 released items, sequences of 30 users."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from handmade import config_of, pointed_at
from test_ranker_data import LAYOUT, TOKENIZER, taste_windows
from writing import as_writer

from pipeline.config.models import Config
from pipeline.lake.artefacts import store
from pipeline.lake.commit import append
from pipeline.lake.storage import Lake
from ranker.architectures import build
from ranker.artefact import TrainedRanker
from ranker.config import RankerConfig
from ranker.training_events import factors_of, training_events
from schemas.semantic_id import item_hash
from schemas.tables import RELEASED_IDS, SEQUENCES

ITEMS = [f"c{n:02}" for n in range(40)]
SETTINGS = {"dim": 16, "layers": 2, "heads": 2, "max_items": 40, "item_id": {}}


def scored_shop(folder: Path) -> Config:
    """The lake's configuration; half of the users have events of the test period."""
    config = config_of(folder)
    lake = as_writer(Lake.create(config.lake))
    rng = np.random.default_rng(0)
    ids = [
        {"item_id": item, "item_hash": item_hash(item), "content": item, "tokenizer": TOKENIZER, "release": 1}
        | {"shared": rng.integers(0, 6, 2).tolist(), "text": [int(rng.integers(6))], "sid": item}
        | {"image": [int(rng.integers(6))] if n % 3 else None, "has_text": True, "has_image": n % 3 > 0}
        for n, item in enumerate(ITEMS)
    ]
    append(lake, RELEASED_IDS, pa.Table.from_pylist(ids, RELEASED_IDS.schema))
    pointed_at(lake, TOKENIZER)
    rows = taste_windows(30, seed=1).to_pylist()
    for n, row in enumerate(rows):
        row["split"] = "test" if n % 2 else "train"
        row["times"] = (np.arange(len(row["times"])) // 3).tolist()
    older = [row | {"split": "train", "latest": False, "labels": [0] * len(row["labels"])} for row in rows[1::2]]
    append(lake, SEQUENCES, pa.Table.from_pylist(rows + older, SEQUENCES.schema))
    return config


def stored(config: Config, folder: Path, **settings: object) -> str:
    """A ranker of random weights in the lake, and in ``folder/ranker``; its fingerprint."""
    ranker = RankerConfig.model_validate(SETTINGS | settings)
    hash_I = torch.tensor(sorted(map(item_hash, ITEMS[:-3]))) if ranker.item_id else None  # some are new
    decoded_CV, factors = None, None
    if ranker.collaborative is not None:
        rows = LAYOUT.slots * (LAYOUT.codebook_size + 1)
        decoded_CV = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
        factors = factors_of(training_events([taste_windows(30, seed=1)]), ranker.collaborative, decoded_CV)
    model = build(ranker, LAYOUT, decoded_CV, factors, hash_I)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    trained = TrainedRanker(ranker, LAYOUT, TOKENIZER, model.state_dict())
    trained.save(folder / "ranker", {})
    store(as_writer(Lake.create(config.lake)), "rankers", folder / "ranker", trained.fingerprint)
    return trained.fingerprint

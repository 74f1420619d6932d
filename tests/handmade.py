"""A lake filled by hand, without Spark and encoders: items, vectors, tokenizers, IDs.

A night is a mapping from item to content; an item whose content is ``None`` is deleted.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.config.models import Config
from pipeline.lake.artefacts import store
from pipeline.lake.run import new_run_id
from pipeline.lake.storage import Lake
from schemas.semantic_id import disambiguator
from schemas.tables import EMBEDDINGS, ITEMS, SEMANTIC_IDS
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.methods import build

TEXT_DIM, IMAGE_DIM = 12, 10
TOKENIZER = TokenizerConfig(
    shared_levels=2, text_levels=1, image_levels=1, codebook_size=8, dim=16, hidden=32, epochs=1, min_steps=20
)

Night = Mapping[str, str | None]
Codes = tuple[int, int, int, int | None]  # two shared, one text, one image


def config_of(folder: Path, **sections: Any) -> Config:
    source = {"path": str(folder / "items.csv"), "format": "csv"}
    catalog = {"source": source, "id": "id", "text": "{t}"}
    return Config.model_validate({"lake": str(folder / "lake"), "catalog": catalog} | sections)


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def extracted(lake: Lake, night: Night, files: int = 1) -> None:
    """What ``extract`` would have appended, in so many commits of one run; the order is that of ``night``."""
    run_id = new_run_id()
    rows = [
        {
            "item_id": item,
            "content_hash": digest(content or item),
            "deleted": content is None,
            "run_id": run_id,
            "extracted_at": 0,
        }
        for item, content in night.items()
    ]
    _append(lake, ITEMS, rows, files)


def encoded(lake: Lake, contents: Sequence[str], encoder: str, files: int = 1) -> None:
    """Vectors that are a function of content and encoder; every fourth content has no picture."""
    rows = []
    for content in contents:
        rng = np.random.default_rng(int(digest(encoder + content)[:12], 16))
        text, image = (rng.normal(size=n).astype(np.float16).astype(np.float32) for n in (TEXT_DIM, IMAGE_DIM))
        pictured = int(digest(content)[:8], 16) % 4 > 0
        rows.append(
            {
                "content_hash": digest(content),
                "encoder": encoder,
                "text_embedding": text,
                "image_embedding": image if pictured else None,
            }
        )
    _append(lake, EMBEDDINGS, rows, files)


def trained(lake: Lake, encoder: str, seed: int = 0, **settings: Any) -> str:
    """A tokenizer in the lake whose weights and codebooks are noise; its fingerprint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(TOKENIZER.model_copy(update={"seed": seed, **settings}), TEXT_DIM, IMAGE_DIM)
        for name, buffer in model.named_buffers():
            if "codebooks" in name:
                buffer.normal_()
    model.seen_2.fill_(True)
    with tempfile.TemporaryDirectory() as folder:
        fingerprint = artefact.save(model.eval(), Path(folder), {}, encoder)
        store(lake, "tokenizers", Path(folder), fingerprint)
    return fingerprint


def described(lake: Lake, fingerprint: str, config: TokenizerConfig = TOKENIZER) -> str:
    """A tokenizer of which the lake has no more than the description."""
    description = artefact.Description(
        fingerprint=fingerprint, encoder="e" * 16, text_dim=12, image_dim=10, config=config, versions={}
    )
    lake.write_json(f"tokenizers/{fingerprint}/config.json", description.model_dump(mode="json"))
    return fingerprint


def identified(lake: Lake, tokenizer: str, codes: Mapping[str, Codes], night: Night, **constant: Any) -> None:
    """What ``tokenize`` would have appended for the contents of ``night``; ``constant`` replaces columns."""
    layout, rows = TOKENIZER.layout(), []
    for item, (*shared, text, image) in codes.items():
        row = [*shared, text, layout.absent if image is None else image]
        rows.append(
            {
                "item_id": item,
                "content_hash": digest(night[item] or item),
                "tokenizer": tokenizer,
                "shared": shared,
                "text": [text],
                "image": None if image is None else [image],
                "disambiguator": disambiguator(item),
                "sid": layout.format(layout.split(row)),
                "has_text": True,
                "has_image": image is not None,
                "run_id": "r",
            }
            | constant
        )
    _append(lake, SEMANTIC_IDS, rows, 1)


def _append(lake: Lake, table: Any, rows: list[dict[str, Any]], files: int) -> None:
    lake.create(table)
    for part in range(files):
        if rows[part::files]:
            lake.append(table, pa.Table.from_pylist(rows[part::files], schema=table.schema))

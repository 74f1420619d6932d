"""A lake filled by hand, without Spark and encoders: items, vectors, tokenizers, IDs.

A night is a mapping from item to content; an item whose content is ``None`` is deleted.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from slow_ids import spelled, split
from writing import as_writer

from pipeline.config.models import Config
from pipeline.lake.artefacts import store
from pipeline.lake.commit import append
from pipeline.lake.storage import Lake
from schemas.semantic_id import item_hash
from schemas.tables import ITEMS, RELEASED_IDS, RELEASES, SEMANTIC_IDS, VECTORS, Table
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.methods import build

TEXT_DIM, IMAGE_DIM = 12, 10
TOKENIZER = TokenizerConfig(
    shared_levels=2, text_levels=1, image_levels=1, codebook_size=8, dim=16, hidden=32, epochs=1, min_steps=20
)

Night = Mapping[str, str | None]
Codes = tuple[int, int, int, int | None]  # two shared, one text, one image
Encoders = Mapping[str, str]  # by modality


def config_of(folder: Path, **sections: Any) -> Config:
    """One actor a pool, unless ``sections`` say otherwise: what a test waits for is their start."""
    source = {"path": str(folder / "items.csv"), "format": "csv"}
    catalog = {"source": source, "id": "id", "text": "{t}"}
    encoders = {"workers": 1} | sections.pop("encoders", {})
    return Config.model_validate({"lake": str(folder / "lake"), "catalog": catalog, "encoders": encoders} | sections)


def writable(uri: str | Path) -> Lake:
    """A lake that the test writes to as a new run."""
    lake = Lake.create(str(uri))
    become_run(lake)
    return lake


def become_run(lake: Lake) -> str:
    """Let ``lake`` be written by a new run; its id."""
    writer = as_writer(lake).writer
    assert writer is not None
    return writer.run_id


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def shas(content: str) -> dict[str, str | None]:
    """Hashes of a content's text and picture; every fourth content has no picture."""
    pictured = int(digest(content)[:8], 16) % 4 > 0
    return {"text_sha": digest(f"text {content}"), "image_sha": digest(f"image {content}") if pictured else None}


def content_name(content: str) -> str:
    """What :func:`pipeline.on_spark.expressions.content` makes of the hashes."""
    return digest("|".join(sha or "" for sha in shas(content).values()))[:32]


def extracted(lake: Lake, night: Night, files: int = 1) -> None:
    """What ``extract`` would have appended, in so many commits of one run; the order is that of ``night``."""
    run_id = become_run(lake)
    rows = [
        {"item_id": item, "deleted": content is None, "run_id": run_id, "extracted_at": 0}
        | ({} if content is None else {"text": content, **shas(content)})
        for item, content in night.items()
    ]
    _append(lake, ITEMS, rows, files)


def vector(sha: str, encoder: str, width: int) -> list[float]:
    rng = np.random.default_rng(int(digest(encoder + sha)[:12], 16))
    return rng.normal(size=width).astype(np.float16).astype(np.float32).tolist()


def encoded(lake: Lake, contents: Sequence[str], encoders: Encoders, files: int = 1) -> None:
    """Vectors that are a function of text or picture and its encoder."""
    become_run(lake)
    for modality, width in (("text", TEXT_DIM), ("image", IMAGE_DIM)):
        wanted = dict.fromkeys(sha for content in contents if (sha := shas(content)[f"{modality}_sha"]))
        rows = [
            {"encoder": encoders[modality], "sha": sha, "vector": vector(sha, encoders[modality], width)}
            for sha in wanted
        ]
        _append(lake, VECTORS, rows, files)


def trained(lake: Lake, encoders: Encoders, seed: int = 0, **settings: Any) -> str:
    """A tokenizer in the lake whose weights and codebooks are noise; its fingerprint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(TOKENIZER.model_copy(update={"seed": seed, **settings}), TEXT_DIM, IMAGE_DIM)
        for name, buffer in model.named_buffers():
            if "codebooks" in name:
                buffer.normal_()
    model.seen_2.fill_(True)
    with tempfile.TemporaryDirectory() as folder:
        fingerprint = artefact.save(model.eval(), Path(folder), {}, dict(encoders))
        store(lake, "tokenizers", Path(folder), fingerprint)
    return fingerprint


def described(lake: Lake, fingerprint: str, config: TokenizerConfig = TOKENIZER) -> str:
    """A tokenizer of which the lake has no more than the description."""
    description = artefact.Description(
        fingerprint=fingerprint,
        encoders={"text": "e" * 16, "image": "f" * 16},
        text_dim=12,
        image_dim=10,
        config=config,
        versions={},
    )
    lake.write_json(f"tokenizers/{fingerprint}/config.json", description.model_dump(mode="json"))
    return fingerprint


def identified(
    lake: Lake,
    tokenizer: str,
    codes: Mapping[str, Codes],
    night: Night,
    name: Callable[[str], str] = content_name,
    **constant: Any,
) -> None:
    """What ``tokenize`` would have appended for the contents of ``night``; ``constant`` replaces columns."""
    run_id, layout, rows = become_run(lake), TOKENIZER.layout(), []
    for item, (*shared, text, image) in codes.items():
        row = [*shared, text, layout.absent if image is None else image]
        rows.append(
            {
                "item_id": item,
                "content": name(night[item] or item),
                "tokenizer": tokenizer,
                "item_hash": item_hash(item),
                "shared": shared,
                "text": [text],
                "image": None if image is None else [image],
                "sid": spelled(split(row, layout)),
                "has_text": True,
                "has_image": image is not None,
                "run_id": run_id,
            }
            | constant
        )
    _append(lake, SEMANTIC_IDS, rows, 1)


def pointed_at(lake: Lake, tokenizer: str) -> None:
    """A release of what ``released_ids`` has, if anything, under a tokenizer."""
    row = {"version": 1, "tokenizer": tokenizer, "action": "publish", "gates": "{}", "digest": "", "run_id": "r"}
    row |= {"items_version": 0, "semantic_ids_version": 0, "released_ids_version": lake.version(RELEASED_IDS) or 0}
    _append(lake, RELEASES, [row | {"time": 0}], 1)


def _append(lake: Lake, table: Table, rows: list[dict[str, Any]], files: int) -> None:
    for part in range(files):
        if rows[part::files]:
            append(lake, table, pa.Table.from_pylist(rows[part::files], schema=table.schema))

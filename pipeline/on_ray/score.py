"""Ray Data: candidates ranked for users by a trained ranker, each history remembered once.

Histories are the users' latest windows of ``sequences``, at most ``ranker.max_items`` events, up to the end of the log.
Two stages stream: users become memories, memories and candidates become the best of each user. In one place are only
the ids of the users that were asked for, and the candidates.

Letters: B users, C candidates, T semantic tokens, K best ones.
"""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray.data
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, JobError
from pipeline.lake.artefacts import local_folder
from pipeline.lake.run import Run
from pipeline.lake.storage import Lake
from pipeline.on_ray.pools import Stage, pool_for
from pipeline.on_ray.session import read_files, share_of_node, worker_device
from pipeline.on_ray.training.code_vectors import filled
from pipeline.on_ray.training.ranker import trained_ranker
from pipeline.on_ray.training.scoring import Folder
from pipeline.release.pointer import require_release
from ranker.artefact import TrainedRanker, load
from ranker.hmat.memory_rows import layout, pack, unpack
from ranker.hmat.model import HMAT
from ranker.windows import bucket, collate, window_lengths
from schemas.semantic_id import PARTS, Layout
from schemas.tables import RELEASED_IDS, SEQUENCES

logger = logging.getLogger(__name__)

HISTORY = ["user_id", "tokens", "item_hashes", "labels", "feedback", "times", "loss_mask", "latest"]
REMEMBERED_USERS = 64  # that come to a worker at once
SCORED_USERS = 16
PAIRS = 4096  # of a user and a candidate that are scored at once
LISTED = 100  # of what is unknown, in the run record
TOP, MEMORIES, LAYOUT = "top", "memories", "memories.json"


@dataclass(frozen=True)
class Candidates:
    """Items that may be ranked: their ids, int64 hashes (C,) and int64 codes (C, T)."""

    item_ids: list[str]
    hashes_C: NDArray[np.int64]
    tokens_CT: NDArray[np.int64]


def score(run: Run, ranker: str, users: list[str], items: list[str], to: Path, top: int, memories: bool) -> None:
    """Write the ``top`` of ``items`` for each of ``users`` to ``to/top``, Parquet of ``user_id``, ``item_id``, ``rank``
    (from 1) and ``score`` (click probability); with ``memories`` also ``to/memories``, Parquet of ``user_id``,
    ``items`` and ``memory``, and ``to/memories.json``, which describes them.

    ``to`` must be reached by every machine of the cluster. Who is unknown is left out, counted and listed.

    Raises:
        ConfigError: the lake has no such ranker, or ``to`` holds something.
        JobError: the ranker is damaged, remembers nothing, or reads another tokenizer than the released one; none of
            the users has a history, or none of the items is released.
    """
    lake = run.lake
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"--to {to}: there is something already; name an empty folder")
    trained = trained_ranker(lake, ranker)
    if trained.config.arch != "hmat":
        raise JobError(f"ranker {ranker} is of arch {trained.config.arch}, which has no memory: score wants hmat")
    candidates = find_candidates(run, trained, items)
    with run.phase("users"):
        known = _known_users(run, trained.tokenizer, users)
    pool = pool_for(known, SCORED_USERS, most=1, share=0.5)  # the two stages run at once
    folder_of = partial(local_folder, lake, "rankers", ranker)
    remember = Stage(Rememberer, (folder_of, pool.workers))
    remembered = pool.map(_histories(lake, trained.tokenizer, users), remember, REMEMBERED_USERS)
    to.mkdir(parents=True, exist_ok=True)
    if memories:
        with run.phase("remember"):
            described = {"ranker": ranker, "tokenizer": trained.tokenizer} | layout(trained.config)
            (to / LAYOUT).write_text(json.dumps(described, indent=2) + "\n")
            remembered.write_parquet(str(to / MEMORIES))
            remembered = ray.data.read_parquet(str(to / MEMORIES))
    with run.phase("score"):
        best = pool.map(remembered, Stage(Scorer, (folder_of, pool.workers, candidates, top)), SCORED_USERS)
        best.write_parquet(str(to / TOP))
    run.count(rows_out=known * min(top, len(candidates.item_ids)))
    run.metrics |= {"ranker": ranker, "tokenizer": trained.tokenizer}


def find_candidates(run: Run, trained: TrainedRanker, items: list[str]) -> Candidates:
    """The items that are released, in the order of their ids.

    Raises:
        JobError: none of them is, or what is released is of another tokenizer than the ranker's.
    """
    release = require_release(run.lake)
    if release.tokenizer != trained.tokenizer:
        raise JobError(
            f"the ranker reads tokenizer {trained.tokenizer}, {release.tokenizer} is released: train a ranker on it"
        )
    run.read(RELEASED_IDS, release.released_ids_version)
    asked = list(dict.fromkeys(items))
    columns = ["item_id", "item_hash", *PARTS]
    wanted = ds.field("item_id").isin(asked)
    rows = run.lake.read(RELEASED_IDS, columns, where=wanted, version=release.released_ids_version).sort_by("item_id")
    found = rows["item_id"].to_pylist()
    _unknown(run, "items", len(asked), sorted(set(asked) - set(found)), "candidates are released: are these item ids?")
    return Candidates(found, rows["item_hash"].to_numpy().copy(), _tokens(rows, trained.layout))


def _tokens(rows: pa.Table, layout: Layout) -> NDArray[np.int64]:
    parts = [filled(rows[p], levels, layout.absent) for p, levels in zip(PARTS, layout.levels, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.int64)


def _known_users(run: Run, tokenizer: str, users: list[str]) -> int:
    """How many of the users have a history; the others are counted and listed."""
    run.read(SEQUENCES)
    asked = set(users)
    missing = set(asked)
    for row in _histories(run.lake, tokenizer, users, ["user_id", "latest"]).iter_rows():
        missing.discard(row["user_id"])
    _unknown(run, "users", len(asked), sorted(missing), "users have a history in sequences: are these user ids?")
    return len(asked) - len(missing)


def _unknown(run: Run, what: str, asked: int, unknown: list[str], wanted: str) -> None:
    run.count(**{what: asked - len(unknown), f"unknown_{what}": len(unknown)})
    run.metrics[f"unknown_{what}"] = unknown[:LISTED]
    some = ", ".join(unknown[:3])
    if len(unknown) == asked:
        raise JobError(f"none of the {asked:,} {wanted} Such as {some}" if asked else f"no {what} were given")
    if unknown:
        logger.warning("score: %s of %s %s are unknown and left out, such as %s", len(unknown), asked, what, some)


def _histories(lake: Lake, tokenizer: str, users: list[str], columns: list[str] = HISTORY) -> ray.data.Dataset:
    """The latest windows of the users.

    Raises:
        JobError: there are no windows under ``tokenizer``.
    """
    files = lake.files(SEQUENCES, {"tokenizer": tokenizer})
    if not files:
        raise JobError(f"there are no windows of tokenizer {tokenizer}: run sequences while it is released")
    windows = read_files(lake, [lake.path(f"{SEQUENCES.name}/{file}") for file in files], columns)
    found = windows.map_batches(_asked, batch_format="pyarrow", fn_kwargs={"users": pa.array(users, pa.string())})
    return found.repartition(target_num_rows_per_block=REMEMBERED_USERS)  # few files still make work for many workers


def _asked(windows: pa.Table, users: pa.Array) -> pa.Table:
    wanted = pc.and_(windows["latest"], pc.is_in(windows["user_id"].cast(pa.string()), value_set=users))
    return windows.filter(wanted)


class _WithModel:
    """Reads the artefact once."""

    def __init__(self, folder: Folder, workers: int) -> None:
        with folder() as here:
            ranker = load(here)
        self.config, self.layout, self.device = ranker.config, ranker.layout, torch.device(worker_device())
        self.model = cast(HMAT, ranker.model(self.device))
        torch.set_num_threads(share_of_node(workers))


class Rememberer(_WithModel):
    """Histories to memories."""

    def __call__(self, windows: pa.Table) -> pa.Table:
        """``user_id``, ``items`` int32 and ``memory`` binary, see :mod:`ranker.hmat.memory_rows`."""
        lengths = window_lengths(windows)
        users: list[str] = []
        items: list[int] = []
        memories: list[bytes] = []
        for rows in bucket(lengths, self.config.batch_items):
            part = windows.take(rows)
            with torch.inference_mode():
                memory = self.model.remember(*collate(part, self.layout).to(self.device).inputs)
            users += part["user_id"].to_pylist()
            items += lengths[rows].tolist()
            memories += pack(memory, lengths[rows].tolist())
        kinds = {"user_id": pa.string(), "items": pa.int32(), "memory": pa.large_binary()}
        return pa.table(dict(zip(kinds, (users, items, memories), strict=True)), schema=pa.schema(kinds))


class Scorer(_WithModel):
    """Memories to the best candidates."""

    def __init__(self, folder: Folder, workers: int, candidates: Candidates, top: int) -> None:
        super().__init__(folder, workers)
        self.item_ids, self.top = pa.array(candidates.item_ids, pa.string()), min(top, len(candidates.item_ids))
        self.hashes_C, self.tokens_CT = map(torch.from_numpy, (candidates.hashes_C, candidates.tokens_CT))

    def __call__(self, memories: pa.Table) -> pa.Table:
        """``user_id``, ``item_id``, ``rank`` int32 from 1, ``score`` float32; of equal scores the lower id first."""
        users = len(memories)
        if not users:
            return pa.table(TOP_SCHEMA.empty_table())
        memory, items_B = unpack(memories["memory"].to_pylist(), memories["items"].to_pylist(), self.config)
        memory, seen_B1 = memory.to(self.device), items_B[:, None].to(self.device)
        best_BK, place_BK = torch.full((users, 0), -torch.inf), torch.zeros(users, 0, dtype=torch.int64)
        step = max(1, PAIRS // users)
        for start in range(0, len(self.item_ids), step):
            tokens_CT, hashes_C = (x[start : start + step].to(self.device) for x in (self.tokens_CT, self.hashes_C))
            seen_BC = seen_B1.expand(users, len(hashes_C))
            with torch.inference_mode():
                logits_BC = self.model.score(
                    memory, tokens_CT.expand(users, -1, -1), hashes_C.expand(users, -1), seen_BC
                ).cpu()
            place_BC = torch.arange(start, start + len(hashes_C)).expand(users, -1)
            found_BX, places_BX = torch.cat([best_BK, logits_BC], 1), torch.cat([place_BK, place_BC], 1)
            order_BK = found_BX.sort(stable=True, dim=1, descending=True).indices[:, : self.top]
            best_BK, place_BK = found_BX.gather(1, order_BK), places_BX.gather(1, order_BK)
        return pa.table(
            {
                "user_id": memories["user_id"].take(pa.array(np.repeat(np.arange(users), self.top))),
                "item_id": self.item_ids.take(pa.array(place_BK.flatten().numpy())),
                "rank": np.tile(np.arange(1, self.top + 1, dtype=np.int32), users),
                "score": best_BK.flatten().double().sigmoid().float().numpy(),
            }
        ).cast(TOP_SCHEMA)


TOP_SCHEMA = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "rank": pa.int32(), "score": pa.float32()})

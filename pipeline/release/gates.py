"""What new IDs are measured by before readers see them, alone and against the released ones, and the limits they keep.

N items, L levels of a part.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.models import Gates
from schemas.semantic_id import PARTS, Layout

MODALITIES = ("text", "image")
COLUMNS = ["item_id", "content_hash", "sid", "disambiguator", *PARTS, "has_text", "has_image"]

# Gate, figure. A figure that was not measured, as drift before anything is released, has no gate.
AT_MOST = {
    "max_collision_rate": "collision_rate",
    "max_without_text": "without_text",
    "max_without_image": "without_image",
    "max_without_text_growth": "without_text_growth",
    "max_without_image_growth": "without_image_growth",
    "max_row_drift": "row_drift",
    "max_delete_fraction": "deleted_fraction",
}
AT_LEAST = {"min_codebook_use": "codebook_use", "min_coverage": "coverage"}
NEVER = {
    "items_sharing_an_id": "items that have both codes and disambiguator of another one",
    "ids_moved": "items whose content is as released and whose ID is not, under the same tokenizer",
}


@dataclass(frozen=True)
class Snapshot:
    """The IDs of a release: ``live``, the ids of its live items, and ``rows``, one for each of them that has an ID.

    ``rows`` has :data:`COLUMNS`.
    """

    tokenizer: str
    live: pa.ChunkedArray
    rows: pa.Table


def measure(found: Snapshot, layout: Layout) -> dict[str, Any]:
    """Figures of the IDs alone; shares lie in 0 to 1. ``found`` must have a row."""
    rows, live = found.rows, len(found.live)
    used = codes_used(rows, layout)
    return {
        "live_items": live,
        "items_with_ids": rows.num_rows,
        "coverage": rows.num_rows / live,
        **collisions(rows),
        "codebook_use": min(used.values()),
        "codes_used": used,
        **{f"without_{m}": _share_without(rows, m) for m in MODALITIES},
    }


def collisions(rows: pa.Table) -> dict[str, Any]:
    """Items that share their codes with other content (``collision_rate``, a share) or with any item, or the whole ID.

    Strings become numbers first, so that a million items take seconds.
    """
    tuple_N, tuples = _numbered(rows["sid"])
    content_N, contents = _numbered(rows["content_hash"])
    pairs_P = np.unique(tuple_N * contents + content_N)  # distinct contents, by tuple
    colliding_T = np.bincount(pairs_P // max(1, contents), minlength=tuples) > 1
    order_N = np.lexsort((rows["disambiguator"].to_numpy(), tuple_N))
    ids = (tuple_N[order_N], rows["disambiguator"].to_numpy()[order_N])
    repeated = np.logical_and.reduce([part_N[1:] == part_N[:-1] for part_N in ids])
    return {
        "collision_rate": float(colliding_T[tuple_N].mean()) if len(tuple_N) else 0.0,
        "items_sharing_codes": int((np.bincount(tuple_N, minlength=tuples)[tuple_N] > 1).sum()),
        "items_sharing_an_id": int(repeated.sum()),
    }


def codes_used(rows: pa.Table, layout: Layout) -> dict[str, float]:
    """The share of each level's codes that some item uses; levels of a modality that no item has are left out."""
    used = {}
    for part, levels in zip(PARTS, layout.levels, strict=True):
        codes_NL = np.asarray(pc.list_flatten(rows[part])).reshape(-1, levels) if levels else np.zeros((0, 0))
        for level in range(levels):
            used[f"{part}_{level}"] = len(np.unique(codes_NL[:, level])) / layout.codebook_size
    return {name: share for name, share in used.items() if share} or {"shared_0": 0.0}


def drift(released: Snapshot, found: Snapshot) -> dict[str, Any]:
    """How far ``found`` has gone from what is ``released``, which must have a row.

    ``row_drift`` is the change of the number of live items, up or down, as a share of the released number;
    ``deleted_fraction`` the share of released items that are no longer live. Of the items whose content is as released,
    ``ids_moved`` counts those with another ID, which means nothing between two tokenizers.
    """
    old, new = released.rows, found.rows
    place = pc.index_in(new["item_id"], value_set=old["item_id"].combine_chunks())
    both = new.filter(pc.is_valid(place))
    before = old.take(place.drop_null())
    unchanged = pc.equal(both["content_hash"], before["content_hash"])
    moved = pc.or_(*(pc.not_equal(both[name], before[name]) for name in ("sid", "disambiguator")))
    gone = old.num_rows - (pc.sum(pc.is_in(old["item_id"], value_set=found.live.combine_chunks())).as_py() or 0)
    growth = {f"without_{m}_growth": _share_without(new, m) - _share_without(old, m) for m in MODALITIES}
    return {
        "row_drift": abs(len(found.live) - len(released.live)) / len(released.live),
        "deleted_items": gone,
        "deleted_fraction": gone / old.num_rows,
        "new_items": new.num_rows - both.num_rows,
        "unchanged_items": pc.sum(unchanged).as_py() or 0,
        "ids_moved": pc.sum(pc.and_(unchanged, moved)).as_py() or 0,
        **growth,
    }


def nothing_new(released: Snapshot, found: Snapshot, drifted: Mapping[str, Any]) -> bool:
    """Whether readers would see the very IDs that they see now, whatever versions the tables have."""
    return (
        released.tokenizer == found.tokenizer
        and len(released.live) == len(found.live)
        and released.rows.num_rows == found.rows.num_rows == drifted["unchanged_items"]
        and drifted["ids_moved"] == 0
    )


def check(figures: Mapping[str, Any], gates: Gates, *, same_tokenizer: bool = True) -> dict[str, Any]:
    """Every gate that applies, with its figure, its limit, and whether it holds."""
    never = ("items_sharing_an_id", "ids_moved") if same_tokenizer else ("items_sharing_an_id",)
    at_most = {gate: (figure, getattr(gates, gate)) for gate, figure in AT_MOST.items()} | {n: (n, 0) for n in never}
    at_least = {gate: (figure, getattr(gates, gate)) for gate, figure in AT_LEAST.items()}
    found = {}
    for limits, holds in ((at_most, operator.le), (at_least, operator.ge)):
        for gate, (figure, limit) in limits.items():
            if figure in figures:
                found[gate] = {"figure": figures[figure], "limit": limit, "ok": holds(figures[figure], limit)}
    return found


def broken(checked: Mapping[str, Any]) -> list[str]:
    """A sentence for every gate that does not hold: what it limits, its figure and its limit."""

    def meaning(gate: str) -> str:
        return NEVER.get(gate) or Gates.model_fields[gate].description or gate

    return [
        f"{gate}: {entry['figure']:.4g}, limit {entry['limit']:.4g} ({meaning(gate)})"
        for gate, entry in checked.items()
        if not entry["ok"]
    ]


def _share_without(rows: pa.Table, modality: str) -> float:
    return 1 - float(pc.mean(rows[f"has_{modality}"]).as_py())


def _numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """A number for every value, int64, and how many values differ."""
    coded = column.combine_chunks().dictionary_encode()
    return np.asarray(coded.indices).astype(np.int64), len(coded.dictionary)

"""What moving from one tokenizer to another would mean for an item's codes, level by level, over the live items.

Code numbers are arbitrary: two trainings that group items alike number the groups differently. So beside the share of
items whose number changed stand two figures that do not depend on numbering.

N items, L levels of a part.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from sklearn.metrics import adjusted_mutual_info_score

from pipeline.lake.artefacts import tokenizer_layout
from pipeline.lake.live import first_of_each, live_items, only
from pipeline.lake.storage import Lake
from pipeline.release.gates import collisions
from schemas.semantic_id import PARTS
from schemas.tables import SEMANTIC_IDS

SAMPLE = 10_000  # items that mutual information looks at: its correction for chance takes the square of that
UNMATCHED = 1e-6  # what leaving a code without a partner is worth, in items

Codes = NDArray[np.int16]


def migration(lake: Lake, old: str, new: str) -> dict[str, Any]:
    """The figures of moving the live items from tokenizer ``old`` to ``new``; ``levels`` are of :func:`by_level`.

    Parts are compared where both tokenizers have them: level by level up to the shorter one's for the shared part,
    whole for the text's and the image's, whose levels must agree in number.
    """
    live = live_items(lake)
    ids = {name: _ids(lake, name, live) for name in (old, new)}
    before, after = _aligned(*ids.values())
    levels = []
    shapes = (tokenizer_layout(lake, name).levels for name in (old, new))
    for part, old_levels, new_levels in zip(PARTS, *shapes, strict=True):
        if old_levels == new_levels or part == "shared":
            has = pc.and_(pc.is_valid(before[part]), pc.is_valid(after[part]))
            hash_N = np.asarray(before["disambiguator"].filter(has))
            old_NL, new_NL = (
                _codes(rows[part].filter(has), n) for rows, n in ((before, old_levels), (after, new_levels))
            )
            levels += by_level(part, old_NL, new_NL, hash_N)
    return {
        "released": old,
        "tokenizer": new,
        "items": before.num_rows,
        "released_alone": ids[old].num_rows - before.num_rows,
        "tokenizer_alone": ids[new].num_rows - after.num_rows,
        "without_either": live.num_rows - ids[old].num_rows - ids[new].num_rows + before.num_rows,
        "levels": levels,
        "collision_rate": {name: collisions(rows)["collision_rate"] for name, rows in ids.items()},
    }


def by_level(part: str, old_NL: Codes, new_NL: Codes, hash_N: NDArray[np.int64]) -> list[dict[str, Any]]:
    """For every level that both have, of the same N items in the same order:

    ``renumbered``, the share of items whose code is another number; ``moved``, the share that is left when the codes
    of the level are renamed as well as one can; ``prefix_information``, the adjusted mutual information of the two
    groupings by all codes up to the level: 1 for the same groups, 0 for what chance gives. The last one is measured on
    at most ``SAMPLE`` items, those of the smallest hashes.
    """
    found = []
    sample = np.argsort(hash_N, kind="stable")[:SAMPLE]
    for level in range(min(old_NL.shape[1], new_NL.shape[1])):
        old_N, new_N = old_NL[:, level], new_NL[:, level]
        prefixes = [_group(codes_NL[sample, : level + 1]) for codes_NL in (old_NL, new_NL)]
        figures: dict[str, Any] = {"slot": f"{part}_{level}", "items": len(old_N)}
        if len(old_N):
            figures |= {
                "renumbered": float((old_N != new_N).mean()),
                "moved": 1 - matched(old_N, new_N) / len(old_N),
                "prefix_information": float(adjusted_mutual_info_score(*prefixes)),
            }
        found.append(figures)
    return found


def matched(old_N: NDArray[Any], new_N: NDArray[Any]) -> int:
    """The items that keep their code under the best one-to-one renaming of codes.

    The assignment problem on the contingency table, kept sparse, for codebooks of thousands. Each old code may
    also stay alone, in a column of its own.
    """
    old, old_N = np.unique(old_N, return_inverse=True)
    new, new_N = np.unique(new_N, return_inverse=True)
    shape = len(old), len(new)
    table = sparse.coo_matrix((np.ones(len(old_N)), (old_N, new_N)), shape=shape).tocsr()
    with_none = sparse.hstack([table, UNMATCHED * sparse.identity(len(old))]).tocsr()
    rows, columns = min_weight_full_bipartite_matching(with_none, maximize=True)
    kept = columns < len(new)
    return int(np.asarray(table[rows[kept], columns[kept]]).sum())


def _ids(lake: Lake, tokenizer: str, live: pa.Table) -> pa.Table:
    columns = ["item_id", "content_hash", "sid", "disambiguator", *PARTS]
    rows = lake.read(SEMANTIC_IDS, columns, where=pc.field("tokenizer") == tokenizer)
    return first_of_each(only(rows, live, ["item_id", "content_hash"]), "item_id").combine_chunks()


def _aligned(old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of the items that both have, in the same order."""
    place = pc.index_in(old["item_id"], value_set=new["item_id"].combine_chunks())
    return old.filter(pc.is_valid(place)), new.take(place.drop_null())


def _codes(part: pa.ChunkedArray, levels: int) -> Codes:
    return np.asarray(pc.list_flatten(part)).reshape(-1, levels) if levels else np.zeros((len(part), 0), np.int16)


def _group(codes_NL: Codes) -> NDArray[np.int64]:
    """A number for every distinct row."""
    return np.unique(codes_NL, axis=0, return_inverse=True)[1].ravel()

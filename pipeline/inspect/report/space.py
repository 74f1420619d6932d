"""Items by their vectors: a map in two dimensions, and whom codes make neighbours beside whom vectors do.

All is measured on a sample. M items of it, D width of a modality, E of both together, S slots.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import functions as F
from sklearn.decomposition import PCA

from pipeline.inspect.report.cards import Cards
from pipeline.inspect.report.subject import Subject, sampled
from pipeline.on_spark.delta import files_of
from pipeline.on_spark.expressions import filled_codes
from schemas.semantic_id import MODALITIES
from schemas.tables import VECTORS

MAPPED = 2000  # items
FEWEST = 3
PICTURED = 400  # of these
QUERIES = 8  # items whose neighbours are shown
NEAREST = 6  # of them
COMPARED = 10  # neighbours by vector whose codes are counted

Vectors = NDArray[np.float32]


def space(about: Subject, cards: Cards) -> dict[str, Any]:
    """``map`` and ``neighbours`` of a sample of the items, ``items`` in number; no more than that where it has none."""
    slots = filled_codes(about.layout, absent=-1)
    columns = ["item_id", "content", "sid", "item_hash", *(f"{modality}_sha" for modality in MODALITIES)]
    chosen = about.rows.orderBy(sampled()).limit(MAPPED).select(*columns, slots.alias("slots")).toArrow()
    vectors = _vectors(about, chosen)
    seen = [any(row.get(f"{m}_sha") in vectors[m] for m in MODALITIES) for row in chosen.to_pylist()]
    found = chosen.filter(pa.array(seen, pa.bool_())).sort_by("item_hash")
    if found.num_rows < FEWEST:
        return {"items": found.num_rows, "map": None, "neighbours": None}
    vectors_ME = np.concatenate([_units(vectors[m], found[f"{m}_sha"].to_pylist()) for m in MODALITIES], axis=1)
    codes_MS = np.array(found["slots"].to_pylist(), dtype=np.int64)
    items = found.select(["item_id", "content", "sid"]).to_pylist()
    neighbours = _neighbours(about, vectors_ME, codes_MS, items, cards)
    drawn = _map(vectors_ME, codes_MS, items, cards) if vectors_ME.shape[1] > 1 else None
    return {"items": len(items), "map": drawn, "neighbours": neighbours}


def _vectors(about: Subject, chosen: pa.Table) -> dict[str, dict[str, Vectors]]:
    """By modality and hash the vectors of the chosen items under the tokenizer's encoders."""
    rows = chosen.to_pylist()
    shas = sorted({sha for row in rows for m in MODALITIES if (sha := row[f"{m}_sha"])})
    wanted = F.broadcast(about.spark.createDataFrame(pa.table({"sha": pa.array(shas, pa.string())})))
    files = files_of(about.tables.read(VECTORS, located=True), wanted)
    stored = about.tables.read(VECTORS, files=files).where("vector IS NOT NULL")
    stored = stored.where(F.col("encoder").isin(sorted(set(about.encoders.values()))))
    found = stored.join(wanted, on="sha", how="left_semi").select("encoder", "sha", "vector").toArrow()
    vectors: dict[str, dict[str, Vectors]] = {m: {} for m in MODALITIES}
    for encoder, sha, vector in zip(*(found[name] for name in found.column_names), strict=True):
        for m in MODALITIES:
            if about.encoders[m] == encoder.as_py():
                vectors[m][sha.as_py()] = vector.values.to_numpy()
    return vectors


def _units(vectors: dict[str, Vectors], shas: list[str | None]) -> Vectors:
    """Vectors (M, D) at length one, zeros where an item has none."""
    width = max((len(x_D) for x_D in vectors.values()), default=0)
    nothing_D = np.zeros(width, np.float32)
    x_MD = np.array([vectors.get(sha or "", nothing_D) for sha in shas], np.float32).reshape(len(shas), width)
    length_M1 = np.linalg.norm(x_MD, axis=1, keepdims=True)
    length_M1[length_M1 == 0] = 1
    unit_MD: Vectors = x_MD / length_M1
    return unit_MD


def _map(vectors_ME: Vectors, codes_MS: NDArray[np.int64], items: list[dict[str, Any]], cards: Cards) -> dict[str, Any]:
    """The first two principal components, and the share of the variance that each of them holds."""
    pca = PCA(2, svd_solver="covariance_eigh")
    with np.errstate(invalid="ignore", divide="ignore"):  # of vectors that are all the same there is no variance
        xy_M2 = pca.fit_transform(vectors_ME.astype(np.float64))
    shares = [float(share) for share in np.nan_to_num(pca.explained_variance_ratio_)]
    return {
        "variance": shares,
        "points": [
            {"x": round(float(x), 4), "y": round(float(y), 4), "code": int(code), "sid": item["sid"]}
            | {"card": cards.card(item, picture=number < PICTURED)}
            for number, ((x, y), code, item) in enumerate(zip(xy_M2, codes_MS[:, 0], items, strict=True))
        ],
    }


def _neighbours(
    about: Subject, vectors_ME: Vectors, codes_MS: NDArray[np.int64], items: list[dict[str, Any]], cards: Cards
) -> dict[str, Any]:
    """Of the nearest by vector the share that has the same shared codes, by number of levels, beside any two items;
    and some items with their nearest by vector and by codes."""
    likeness_MM = vectors_ME @ vectors_ME.T
    np.fill_diagonal(likeness_MM, -np.inf)
    most = min(COMPARED, len(items) - 1)
    nearest_MK = np.argsort(-likeness_MM, axis=1, kind="stable")[:, :most]
    levels = []
    for level in range(1, about.layout.shared_levels + 1):
        group_M = np.unique(codes_MS[:, :level], axis=0, return_inverse=True)[1].ravel()
        size_G = np.bincount(group_M)
        pairs = len(items) * (len(items) - 1)
        levels.append(
            {
                "codes": level,
                "kept": float((group_M[nearest_MK] == group_M[:, None]).mean()),
                "chance": float((size_G * (size_G - 1)).sum() / pairs),
            }
        )
    return {"nearest": most, "levels": levels, "queries": _queries(about, nearest_MK, codes_MS, items, cards)}


def _queries(
    about: Subject,
    nearest_MK: NDArray[np.int64],
    codes_MS: NDArray[np.int64],
    items: list[dict[str, Any]],
    cards: Cards,
) -> list[dict[str, Any]]:
    queries = []
    for item in range(min(QUERIES, len(items))):
        agreed_M = _agreed(codes_MS, codes_MS[item], about.layout.shared_levels)
        agreed_M[item] = -1
        by_codes = np.argsort(-agreed_M, kind="stable")[:NEAREST]
        by_codes = by_codes[agreed_M[by_codes] > 0]
        by_vector = nearest_MK[item, :NEAREST]
        both = set(map(int, by_vector)) & set(map(int, by_codes))

        def shown(number: int, both: set[int] = both) -> dict[str, Any]:
            return {"sid": items[number]["sid"], "card": cards.card(items[number]), "in_both": number in both}

        queries.append(
            {
                "item": shown(item),
                "by_vector": [shown(int(n)) for n in by_vector],
                "by_codes": [shown(int(n)) for n in by_codes],
            }
        )
    return queries


def _agreed(codes_MS: NDArray[np.int64], own_S: NDArray[np.int64], shared: int) -> NDArray[np.int64]:
    """How near items are by their codes: leading shared codes in common count most, then own codes in common; 0 where
    not even the first is."""
    same_MS = (codes_MS == own_S) & (own_S >= 0)
    leading_M = np.logical_and.accumulate(same_MS[:, :shared], axis=1).sum(axis=1)
    near_M: NDArray[np.int64] = leading_M * (codes_MS.shape[1] + 1) + same_MS[:, shared:].sum(axis=1)
    return np.where(leading_M > 0, near_M, 0)

"""MovieLens-1M in a lake: embeddings of its films, and how well their codes tell whether a film will be liked.

N films, F features, R ratings.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from pipeline.config.file import load_config
from pipeline.lake.storage import Lake
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.vector_columns import to_matrix
from ranker.evaluation import grouped_auc
from schemas.tables import ITEMS, VECTORS
from tokenizer.base.embeddings import Embeddings

LIKED = 3  # a rating above it is a like
TEST_FRACTION = 0.1
PRIOR_RATINGS = 5  # how many ratings at the overall like rate a film's own are smoothed with
HALF_WEIGHT = 20.0  # ratings that make a film count half as much in the regression as one that all have rated
RIDGE_STRENGTHS = np.logspace(-2, 3, 16)


@dataclass(frozen=True)
class Films:
    """Films with their embeddings, and all ratings in time order with columns user, film, rating, time (R, 4) int64."""

    film_N: NDArray[np.int64]
    embeddings: Embeddings
    ratings_R4: NDArray[np.int64]

    @property
    def hidden_N(self) -> NDArray[np.bool_]:
        """The seventh of the films that count as new (design: movieId · 2654435761 mod 2³² mod 7 = 0)."""
        return _is_hidden(self.film_N)

    @property
    def cut(self) -> int:
        """The point in time at which the test begins."""
        return int(self.ratings_R4[int(len(self.ratings_R4) * (1 - TEST_FRACTION)), 3])


def load_films(config_file: Path) -> Films:
    """The films of a lake in which ``hisam extract`` and ``hisam encode`` have run."""
    config = load_config(config_file, [])
    lake = Lake.open(config.lake, config.storage_options)
    items = lake.read(ITEMS, ["item_id", "run_id", "text_sha", "image_sha", "deleted"]).to_pandas()
    films = items.sort_values("run_id").groupby("item_id").tail(1).query("not deleted")
    films = films.assign(item_id=films["item_id"].astype("int64")).sort_values("item_id")
    vectors = []
    for modality, encoder in encoder_fingerprints(config.encoders).items():
        stored = lake.read(VECTORS, ["sha", "vector"], where=pc.field("encoder") == encoder)
        shas = pa.array(films[f"{modality}_sha"], pa.string(), from_pandas=True)
        at = pc.index_in(shas, value_set=stored["sha"].combine_chunks(), skip_nulls=True)
        vectors.append(to_matrix(stored["vector"].take(at), f"{modality} vectors"))
    (text_ND, has_text_N), (image_ND, has_image_N) = vectors
    embeddings = Embeddings(*map(torch.from_numpy, (text_ND, image_ND, has_text_N, has_image_N)))
    ratings = pd.read_csv(config_file.parent / "ratings.dat", sep="::", engine="python", header=None).to_numpy(np.int64)
    return Films(films["item_id"].to_numpy(np.int64), embeddings, ratings[np.argsort(ratings[:, 3], kind="stable")])


def new_items_gauc(films: Films, features_NF: NDArray[np.float32]) -> float:
    """GAUC on the hidden films' test events of a ridge regression from features to like rate.

    The regression sees the other films' training ratings alone; its strength is chosen among them by leave-one-out.
    GAUC is the mean AUC of users, weighted by their events; users with one class are left out.
    """
    users_R, film_R, rating_R, time_R = films.ratings_R4.T
    row_R = np.searchsorted(films.film_N, film_R)
    known_R, hidden_R, liked_R = time_R < films.cut, _is_hidden(film_R), rating_R > LIKED
    seen_R, asked_R = known_R & ~hidden_R, ~known_R & hidden_R
    count_N = np.bincount(row_R[seen_R], minlength=len(films.film_N))
    likes_N = np.bincount(row_R[seen_R], weights=liked_R[seen_R], minlength=len(films.film_N))
    rated_N = count_N > 0
    prior = likes_N.sum() / count_N.sum()
    rate_N = (likes_N + PRIOR_RATINGS * prior) / (count_N + PRIOR_RATINGS)
    weight_N = count_N / (count_N + HALF_WEIGHT)
    ridge = RidgeCV(RIDGE_STRENGTHS).fit(features_NF[rated_N], rate_N[rated_N], sample_weight=weight_N[rated_N])
    score_N = ridge.predict(features_NF).astype(np.float64)
    found = grouped_auc(users_R[asked_R], liked_R[asked_R].astype(np.int64), score_N[row_R[asked_R]])
    return float(found["gauc"])


def _is_hidden(film_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    hidden_N: NDArray[np.bool_] = (film_N * 2654435761 % 2**32) % 7 == 0
    return hidden_N

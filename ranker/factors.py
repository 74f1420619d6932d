"""Item factors by alternating ridge regressions: what other users' feedback says of an item, and its text where few do.

The feedback of user u on item i is taken as mean + b_i + u · (1, v_i) + noise of deviation 1, with the user's level
first. A user has the prior N(0, 1 / strength); an item's row (b_i, v_i) has its prior about what a ridge regression
from the item's content vector says, so that an item that nobody knows yet has a row, too. Each of users, items and
regression is solved with the others held.

Beside v_i an item's row for users has the first principal components of its content: two items of like content teach
something of each other even where no user has both.

Letters: P events, U users, I items that training met, V width of a content vector, K factors, L components of the
content, F = 2 + K + L numbers of a row: the bias b, the user's level 1, v, the components.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from ranker.config import CollaborativeConfig

HALF_WEIGHT = 10.0  # events that make an item count half as much in the regression as one that everybody knows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ItemFactors:
    """The row of an item is ``intercept_F + content_V @ content_VF + deviation_IF[its place among hash_I]``.

    float32 but for the int64 ``hash_I``, ascending. The last row of ``deviation_IF`` and of ``count_I``, the training
    events, is of items that training never met. ``precision_F`` is the prior of users, of no meaning for the bias,
    ``scale_F`` how far rows are from the intercept, ``ends_2`` the graded feedback that counts as 0 and 1.
    """

    hash_I: Tensor
    deviation_IF: Tensor
    count_I: Tensor
    intercept_F: Tensor
    content_VF: Tensor
    precision_F: Tensor
    scale_F: Tensor
    ends_2: Tensor

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str) -> "ItemFactors | None":
        """Those among a model's weights whose names begin with ``prefix``, if there are any."""
        found = {field.name: state[prefix + field.name] for field in fields(cls) if prefix + field.name in state}
        return cls(**found) if found else None

    def tensors(self) -> dict[str, Tensor]:
        """Every field by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Events:
    """Training events: int64 ``user_P`` and ``item_P``, numbers without gaps; float64 ``feedback_P``, 0 to 1, in which
    ``ends`` of the graded feedback counted as these."""

    user_P: Ints
    item_P: Ints
    feedback_P: Floats
    ends: tuple[float, float] = (0.0, 1.0)


def fit_factors(
    events: Events, hash_I: Ints, content_IV: Floats | None, config: CollaborativeConfig, seed: int = 0
) -> ItemFactors:
    """Factors of the items ``hash_I``, int64 and ascending, which ``events.item_P`` are places of.

    ``content_IV`` holds their content vectors; a width of 0 if there are none. Cost: ``config.passes`` times the events
    times (K + 1)², and a system of V equations.
    """
    items, factors = len(hash_I), config.factors
    content_IV = np.zeros((items, 0)) if content_IV is None else content_IV.astype(np.float64)
    count_I = np.bincount(events.item_P, minlength=items)
    mean = float(events.feedback_P.mean())
    rows_IR, regression_XR = _alternate(events, content_IV, count_I, mean, config, seed)

    components = min(config.content_components, content_IV.shape[1])
    centre_V, axes_VL = principal_axes(content_IV, count_I, components)
    width = 2 + factors + components
    learned = [0, *range(2, 2 + factors)]  # of a row; the level is 1, the components are the content's alone
    deviation_IF, content_VF = np.zeros((items + 1, width)), np.zeros((content_IV.shape[1], width))
    intercept_F = np.zeros(width)
    with_one_IX = np.c_[np.ones(items), content_IV]
    deviation_IF[:-1, learned] = rows_IR - with_one_IX @ regression_XR
    intercept_F[learned], content_VF[:, learned] = regression_XR[0], regression_XR[1:]
    intercept_F[0] += mean
    intercept_F[1] = 1
    intercept_F[2 + factors :], content_VF[:, 2 + factors :] = -centre_V @ axes_VL, axes_VL
    strengths = [1.0, config.level_strength, *[config.user_strength] * factors]
    precision_F = np.array(strengths + [config.component_strength] * components)
    apart_IF = deviation_IF[:-1] + content_IV @ content_VF
    scale_F = np.sqrt(np.average(apart_IF**2, axis=0, weights=count_I))
    scale_F[1] = 1
    columns = (
        deviation_IF,
        np.append(count_I, 0),
        intercept_F,
        content_VF,
        precision_F,
        scale_F,
        np.array(events.ends),
    )
    return ItemFactors(
        torch.from_numpy(hash_I.astype(np.int64)), *(torch.from_numpy(x.astype(np.float32)) for x in columns)
    )


def _alternate(
    events: Events, content_IV: Floats, count_I: Ints, mean: float, config: CollaborativeConfig, seed: int
) -> tuple[Floats, Floats]:
    """Rows (b, v) of the items (I, 1 + K), and the regression to them from (1, content)."""
    user_P, item_P, items, factors = events.user_P, events.item_P, len(count_I), config.factors
    users = int(user_P.max()) + 1
    above_P = events.feedback_P - mean
    seen_UI = csr_matrix((np.ones(len(user_P)), (user_P, item_P)), (users, items))
    seen_IU = seen_UI.T.tocsr()
    rows_IR = np.zeros((items, 1 + factors))
    rows_IR[:, 0] = np.bincount(item_P, above_P, items) / (count_I + config.bias_strength)
    rows_IR[:, 1:] = np.random.default_rng(seed).normal(0, 0.1, (items, factors))
    of_users = np.diag([config.level_strength, *[config.user_strength] * factors])
    of_items = np.diag([config.bias_strength, *[config.item_strength] * factors])
    with_one_IX = np.c_[np.ones(items), content_IV]
    weight_I1 = (count_I / (count_I + HALF_WEIGHT))[:, None]
    ridge_XX = config.content_strength * np.diag([1e-6, *[1.0] * content_IV.shape[1]])
    system_XX = (with_one_IX * weight_I1).T @ with_one_IX + ridge_XX
    regression_XR = np.zeros((content_IV.shape[1] + 1, 1 + factors))
    for _ in range(config.passes):
        known_IR = np.c_[np.ones(items), rows_IR[:, 1:]]
        above_bias_UI = csr_matrix((above_P - rows_IR[item_P, 0], (user_P, item_P)), (users, items))
        user_UR = _solved(_gram(seen_UI, known_IR) + of_users, above_bias_UI @ known_IR)

        asked_UR = np.c_[np.ones(users), user_UR[:, 1:]]
        above_level_IU = csr_matrix((above_P - user_UR[user_P, 0], (item_P, user_P)), (items, users))
        prior_IR = with_one_IX @ regression_XR
        rows_IR = _solved(_gram(seen_IU, asked_UR) + of_items, above_level_IU @ asked_UR + prior_IR @ of_items)
        if content_IV.shape[1]:
            regression_XR = np.linalg.solve(system_XX, (with_one_IX * weight_I1).T @ rows_IR)
    return rows_IR, regression_XR


def _gram(seen: csr_matrix, rows_XR: Floats) -> Floats:
    """For each row of ``seen`` the sum of outer products of the rows it names."""
    width = rows_XR.shape[1]
    products = (rows_XR[:, :, None] * rows_XR[:, None]).reshape(len(rows_XR), -1)
    return np.asarray(seen @ products).reshape(-1, width, width)


def _solved(left_XRR: Floats, right_XR: Floats) -> Floats:
    return np.asarray(np.linalg.solve(left_XRR, right_XR[..., None])[..., 0])


def principal_axes(content_IV: Floats, count_I: Ints, components: int) -> tuple[Floats, Floats]:
    """The mean content over events (V,), and the first axes (V, L) about it, items counting by the root of events."""
    centre_V = np.average(content_IV, axis=0, weights=count_I) if content_IV.shape[1] else np.zeros(0)
    root_I1 = np.sqrt(count_I + 1.0)[:, None]
    about_IV = (content_IV - centre_V) * root_I1
    _, axes_VV = np.linalg.eigh(about_IV.T @ about_IV)
    return centre_V, axes_VV[:, ::-1][:, :components]

"""Item factors by alternating ridge regressions: what other users' feedback says of an item, and its text where few do.

The feedback of user u on item i is taken as mean + b_i + u · (1, v_i) + noise of deviation 1, with the user's level
first. A user has the prior N(0, 1 / strength); an item's row (b_i, v_i) has its prior about what a ridge regression
from the item's content vector says, so that an item that nobody knows yet has a row, too. Each of users, items and
regression is solved with the others held.

Beside v_i an item's row for users has the first principal components of its content: two items of like content teach
something of each other even where no user has both.

Letters: P events, U users, I items that training met, V width of a content vector, K factors, L components of the
content, G folds
of users, F = 2 + K + L numbers of a row: the bias b, the user's level 1, v, the components.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from torch import Tensor

from ranker.config import CollaborativeConfig
from ranker.windows import FOLDS

FEW = 10.0  # events of a user or item
FEW_MET, HALF_HISTORY, LOG_NUMBER = 20.0, 20.0, 5.0
HALF_WEIGHT = 10.0  # events that make an item count half as much in the regression as one that everybody knows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ItemFactors:
    """The row of an item is ``intercept_F + content_V @ content_VF + deviation_IF[its place among hash_I]``.

    float32 but for the int64 ``hash_I``, ascending. The last row of ``deviation_IF`` and of ``count_I``, the training
    events, is of items that training never met. ``precision_F`` is the prior of users, of no meaning for the bias,
    ``scale_F`` how far rows are from the intercept, ``ends_2`` the graded feedback that counts as 0 and 1.
    ``apart_GIF`` are the deviations without what the users of each fold said: what a ranker trains with, since a row
    that was made of the very label it is to foretell says more in training than it can say later. It is not kept.
    """

    hash_I: Tensor
    deviation_IF: Tensor
    count_I: Tensor
    intercept_F: Tensor
    content_VF: Tensor
    precision_F: Tensor
    scale_F: Tensor
    ends_2: Tensor
    met_IZ: Tensor
    usual_HG: Tensor
    apart_GIF: Tensor | None = None

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str) -> "ItemFactors | None":
        """Those among a model's weights whose names begin with ``prefix``, if there are any."""
        found = {name: state[prefix + name] for name in KEPT if prefix + name in state}
        return cls(**found) if found else None

    def kept(self) -> dict[str, Tensor]:
        """What a ranker keeps, by name."""
        return {name: getattr(self, name) for name in KEPT}


KEPT = tuple(field.name for field in fields(ItemFactors) if field.name != "apart_GIF")


@dataclass(frozen=True)
class Events:
    """Training events: int64 ``user_P`` and ``item_P``, numbers without gaps; float64 ``feedback_P``, 0 to 1, in which
    ``ends`` of the graded feedback counted as these; the fold of every user."""

    user_P: Ints
    item_P: Ints
    feedback_P: Floats
    fold_U: Ints
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
    rows_IR, apart_GIR, regression_XR = _alternate(events, content_IV, count_I, mean, config, seed)

    components = min(config.content_components, content_IV.shape[1])
    centre_V, axes_VL = principal_axes(content_IV, count_I, components)
    width = 2 + factors + components
    learned = [0, *range(2, 2 + factors)]  # of a row; the level is 1, the components are the content's alone
    deviation_IF, content_VF = np.zeros((items + 1, width)), np.zeros((content_IV.shape[1], width))
    apart_GIF = np.zeros((FOLDS, items + 1, width))
    intercept_F = np.zeros(width)
    with_one_IX = np.c_[np.ones(items), content_IV]
    deviation_IF[:-1, learned] = rows_IR - with_one_IX @ regression_XR
    apart_GIF[:, :-1, learned] = apart_GIR - with_one_IX @ regression_XR
    intercept_F[learned], content_VF[:, learned] = regression_XR[0], regression_XR[1:]
    intercept_F[0] += mean
    intercept_F[1] = 1
    intercept_F[2 + factors :], content_VF[:, 2 + factors :] = -centre_V @ axes_VL, axes_VL
    strengths = [1.0, config.level_strength, *[config.user_strength] * factors]
    precision_F = np.array(strengths + [config.component_strength] * components)
    about_IF = deviation_IF[:-1] + content_IV @ content_VF
    scale_F = np.sqrt(np.average(about_IF**2, axis=0, weights=count_I))
    scale_F[1] = 1
    columns = (
        deviation_IF,
        np.append(count_I, 0),
        intercept_F,
        content_VF,
        precision_F,
        scale_F,
        np.array(events.ends),
        *usual_taste(events, content_IV @ content_VF + deviation_IF[:-1] + intercept_F, precision_F, config),
        apart_GIF,
    )
    return ItemFactors(
        torch.from_numpy(hash_I.astype(np.int64)), *(torch.from_numpy(x.astype(np.float32)) for x in columns)
    )


def _alternate(
    events: Events, content_IV: Floats, count_I: Ints, mean: float, config: CollaborativeConfig, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Rows (b, v) of the items (I, 1 + K), the same without each fold's users (G, I, 1 + K), and the regression to them
    from (1, content)."""
    user_P, item_P, items, factors = events.user_P, events.item_P, len(count_I), config.factors
    users = int(user_P.max()) + 1
    above_P = events.feedback_P - mean
    seen_UI = csr_matrix((np.ones(len(user_P)), (user_P, item_P)), (users, items))
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

        prior_IR = with_one_IX @ regression_XR @ of_items
        sums_IRR, sums_IR = _sums_of_items(events, np.ones(users, bool), above_P, user_UR, items)
        rows_IR = _solved(sums_IRR + of_items, sums_IR + prior_IR)
        if content_IV.shape[1]:
            regression_XR = np.linalg.solve(system_XX, (with_one_IX * weight_I1).T @ rows_IR)
    prior_IR = with_one_IX @ regression_XR @ of_items
    rows_IR = _solved(sums_IRR + of_items, sums_IR + prior_IR)
    apart_GIR = []
    for fold in range(FOLDS):
        fold_IRR, fold_IR = _sums_of_items(events, events.fold_U == fold, above_P, user_UR, items)
        apart_GIR.append(_solved(sums_IRR - fold_IRR + of_items, sums_IR - fold_IR + prior_IR))
    return rows_IR, np.stack(apart_GIR), regression_XR


def _sums_of_items(
    events: Events, counted_U: NDArray[np.bool_], above_P: Floats, user_UR: Floats, items: int
) -> tuple[Floats, Floats]:
    """Both sides of the items' equations, without their prior, from the events of some users."""
    counted_P = counted_U[events.user_P]
    user_P, item_P = events.user_P[counted_P], events.item_P[counted_P]
    asked_UR = np.c_[np.ones(len(user_UR)), user_UR[:, 1:]]
    shape = items, len(user_UR)
    seen_IU = csr_matrix((np.ones(len(user_P)), (item_P, user_P)), shape)
    above_level_IU = csr_matrix((above_P[counted_P] - user_UR[user_P, 0], (item_P, user_P)), shape)
    return _gram(seen_IU, asked_UR), np.asarray(above_level_IU @ asked_UR)


def _gram(seen: csr_matrix, rows_XR: Floats) -> Floats:
    """For each row of ``seen`` the sum of outer products of the rows it names."""
    width = rows_XR.shape[1]
    products = (rows_XR[:, :, None] * rows_XR[:, None]).reshape(len(rows_XR), -1)
    return np.asarray(seen @ products).reshape(-1, width, width)


def _solved(left_XRR: Floats, right_XR: Floats) -> Floats:
    return np.asarray(np.linalg.solve(left_XRR, right_XR[..., None])[..., 0])


def usual_taste(
    events: Events, rows_IF: Floats, precision_F: Floats, config: CollaborativeConfig
) -> tuple[Floats, Floats]:
    """Vectors of items by who meets them (I + 1, Z), and the regression (H, G) from the history of a user, in
    :func:`history_features`, to what the user's vector is to be expected to be."""
    user_P, item_P = events.user_P, events.item_P
    users, items = int(user_P.max()) + 1, len(rows_IF)
    met_IZ = met_vectors(user_P, item_P, (users, items), config.met_components)
    seen_UI = csr_matrix((np.ones(len(user_P)), (user_P, item_P)), (users, items))
    number_U = np.asarray(seen_UI.sum(1)).ravel()
    history_UH = history_features(torch.from_numpy(seen_UI @ met_IZ[:-1]), torch.from_numpy(number_U[:, None])).numpy()
    above_UI = csr_matrix((events.feedback_P - rows_IF[item_P, 0], (user_P, item_P)), (users, items))
    x_IG, precision_G = rows_IF[:, 1:], precision_F[1:]
    system_UGG, weighed_UG = _gram(seen_UI, x_IG) + np.diag(precision_G), np.asarray(above_UI @ x_IG)
    weight_U1 = (number_U / (number_U + HALF_HISTORY))[:, None]
    system_HH = (history_UH * weight_U1).T @ history_UH + config.met_strength * np.eye(history_UH.shape[1])
    usual_HG = np.zeros((history_UH.shape[1], len(precision_G)))
    for _ in range(config.passes):
        user_UG = _solved(system_UGG, weighed_UG + history_UH @ usual_HG * precision_G)
        usual_HG = np.linalg.solve(system_HH, (history_UH * weight_U1).T @ user_UG)
    return met_IZ, usual_HG


def met_vectors(user_P: Ints, item_P: Ints, shape: tuple[int, int], components: int) -> Floats:
    """``(I + 1, Z)``: the first right singular vectors of who met what, where busy users and items count by the inverse
    root of their events; a mean square of 1 over events, 0 for items that training never met and for vectors beyond the
    rank, as where all users met the same items. The greatest number of each is positive."""
    components = min(components, min(shape) - 1)
    met_IZ = np.zeros((shape[1] + 1, components))
    if components:
        weight_P = 1 / np.sqrt((np.bincount(user_P)[user_P] + FEW) * (np.bincount(item_P)[item_P] + FEW))
        _, values_Z, right_ZI = svds(csr_matrix((weight_P, (user_P, item_P)), shape), components, random_state=0)
        told_Z = values_Z > values_Z.max() * max(shape) * np.finfo(np.float64).eps  # the rest is rounding
        met_IZ[:-1] = right_ZI.T * values_Z / np.sqrt(np.bincount(item_P, minlength=shape[1]) + FEW)[:, None]
        met_IZ = np.divide(met_IZ, np.sqrt((met_IZ[item_P] ** 2).mean(0)), np.zeros_like(met_IZ), where=told_Z)
        met_IZ *= np.sign(met_IZ[np.abs(met_IZ).argmax(0), np.arange(components)])  # the search leaves signs to chance
    return met_IZ


def history_features(met_XZ: Tensor, number_X1: Tensor) -> Tensor:
    """``(…, H)``: one, the mean of the vectors of the items met, drawn towards 0, and their number."""
    number_X1 = number_X1.expand(*met_XZ.shape[:-1], 1)
    parts = torch.ones_like(number_X1), met_XZ / (number_X1 + FEW_MET), torch.log1p(number_X1) / LOG_NUMBER
    return torch.cat(parts, -1)


def principal_axes(content_IV: Floats, count_I: Ints, components: int) -> tuple[Floats, Floats]:
    """The mean content over events (V,), and the first axes (V, L) about it, items counting by the root of events."""
    centre_V = np.average(content_IV, axis=0, weights=count_I) if content_IV.shape[1] else np.zeros(0)
    root_I1 = np.sqrt(count_I + 1.0)[:, None]
    about_IV = (content_IV - centre_V) * root_I1
    _, axes_VV = np.linalg.eigh(about_IV.T @ about_IV)
    return centre_V, axes_VV[:, ::-1][:, :components]

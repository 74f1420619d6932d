"""The demo's shoppers: what they are shown, when, and what they click.

A shopper's chance to click an item is logistic in an affinity with each of its three factors, so that whoever knows
the true factors and chances is the ideal observer a ranker can be compared with.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

START = 1_735_689_600  # 2025-01-01T00:00:00Z, in epoch seconds
DAYS = 60

_TASTES = 2  # dimensions of a shopper's taste in each factor
_PERSONAL = (0.9, 0.66, 0.66)  # standard deviation of the logit that each factor's taste gives
_GENERAL = (0.75, 0.55, 0.55)  # and of the part that all shoppers share
_BIAS, _MOOD = -1.1, 0.5  # mean of the logit, standard deviation between shoppers
_DRIFT = np.deg2rad(35)  # how far tastes turn over the whole period
_LAUNCHED_LATER = 0.5  # share of items that appear during the period
_ZIPF = 0.7  # exponent of the popularity of items
_SEEKING = 0.35  # how far taste bends what a shopper is shown


class Interactions(NamedTuple):
    """Columns of the interactions in time order; all of shape ``(E,)``."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    clicked: NDArray[np.int64]
    time: NDArray[np.int64]  # epoch seconds
    chance: NDArray[np.float64]  # of a click, known to the ideal observer alone


def interact(factors: NDArray[np.int64], users: int, seed: int, mean_events: int = 60) -> Interactions:
    """Simulated interactions of ``users`` shoppers with items.

    Args:
        factors: ``(items, 3)`` codes: shared, text-only, image-only.
        users: number of shoppers.
        seed: of every random choice.
        mean_events: mean number of interactions a shopper.
    """
    rng = np.random.default_rng([seed, 2])
    items = len(factors)
    launch = np.sort(np.where(rng.random(items) < _LAUNCHED_LATER, rng.random(items) * DAYS, 0.0))
    by_launch = rng.permutation(items)  # the item at each place in the order of appearance
    popularity = rng.permutation(1.0 / np.arange(1, items + 1) ** _ZIPF)
    general, traits = _item_appeal(factors[by_launch], rng)
    columns = [_shop(user, launch, popularity, general, traits, mean_events, rng) for user in range(users)]
    user, place, clicked, time, chance = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((user, time))
    return Interactions(user[order], by_launch[place][order], clicked[order], time[order], chance[order])


def _item_appeal(factors: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """What all shoppers think of each item, ``(items,)``, and its traits, ``(items, 3 * tastes)``.

    A category's styles share half of their traits' variance.
    """
    general, traits = np.zeros(len(factors)), []
    for column, (personal, common) in enumerate(zip(_PERSONAL, _GENERAL, strict=True)):
        codes = factors[:, column]
        trait = rng.standard_normal((codes.max() + 1, _TASTES))
        if column == 0:
            category = rng.standard_normal((codes.max() // 4 + 1, _TASTES))
            trait = (trait + category[np.arange(len(trait)) // 4]) / np.sqrt(2)
        traits.append(personal / np.sqrt(_TASTES) * trait[codes])
        general += common * rng.standard_normal(codes.max() + 1)[codes]
    return general, np.concatenate(traits, axis=1)


def _shop(
    user: int,
    launch: NDArray,
    popularity: NDArray,
    general: NDArray,
    traits: NDArray,
    mean_events: int,
    rng: np.random.Generator,
) -> tuple[NDArray, ...]:
    """One shopper's history: user, place of the item in order of launch, clicked, time, chance."""
    day = _visits(mean_events, rng)
    taste, later = rng.standard_normal((2, traits.shape[1]))
    angle = _DRIFT * day / DAYS
    affinities = np.stack([traits @ taste, traits @ later])  # one row each: the old and the new taste
    # Items stand in order of launch, so what is on sale at a time is a prefix of the cumulative weights.
    weights = np.cumsum(popularity * np.exp(_SEEKING * (affinities[0] + general)))
    on_sale = np.searchsorted(launch, day, side="right")
    place = np.searchsorted(weights, rng.random(len(day)) * weights[on_sale - 1], side="right")
    first = np.sort(np.unique(place, return_index=True)[1])  # nobody is shown the same item twice
    place, day, angle = place[first], day[first], angle[first]
    affinity = np.cos(angle) * affinities[0, place] + np.sin(angle) * affinities[1, place]
    logit = _BIAS + _MOOD * rng.standard_normal() + general[place] + affinity
    chance = 1 / (1 + np.exp(-logit))
    clicked = (rng.random(len(place)) < chance).astype(np.int64)
    time = START + (day * 86_400).astype(np.int64)
    return np.full(len(place), user), place, clicked, time, chance


def _visits(mean_events: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Days (with fractions, ascending) of one shopper's interactions, bunched into visits of about six."""
    events = max(8, round(1.12 * mean_events * rng.lognormal(-0.125, 0.5)))
    visits = rng.random(max(2, events // 6)) * (DAYS - 0.1)
    return np.sort(rng.choice(visits, events) + rng.random(events) * 0.02)

"""What the columns of a log of interactions are: user, item, time with its unit, label."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import fmean, median

from pipeline.inspect.guess.columns import DATE, Profile

YEAR = 31_556_952  # seconds
FIRST, LAST = 10, 130  # years after 1970 that times of a log lie between
USER = re.compile(r"user|customer|kunde|visitor|reviewer|member|account|client|^uid$")
ITEM = re.compile(r"item|product|article|artikel|produkt|asin|sku|movie|film|video|news|book|track|^(iid|pid)$")
TIME = re.compile(r"time|date|datum|zeit|^ts$|(^|_)at$|created|when")
YES_NO = re.compile(r"click|like|purchas|bought|order|label|convert|gekauft|geklickt|positive|is_")
RATING = re.compile(r"rating|stars|sterne|score|overall|bewertung|note")
DWELL = re.compile(r"dwell|watch|duration|seconds|play|dauer")
KIND = re.compile(r"event|action|behavio|type|ereignis")
GOOD_KIND = re.compile(r"buy|purchas|order|click|like|cart|kauf", re.IGNORECASE)


@dataclass(frozen=True)
class Log:
    """A guess; what is ``None`` could not be guessed."""

    user: str | None
    item: str | None
    time: str | None
    unit: str | None
    label: str | None
    why: str | None = None  # the label is what it is
    roles: dict[str, str] = field(default_factory=dict)


def guess_log(columns: list[Profile], items: Collection[str], item_column: str | None) -> Log:
    """A guess by names and values.

    Args:
        columns: of the log.
        items: ids of the catalogue, some or all.
        item_column: the name of the id in the catalogue.
    """
    item = _item(columns, set(items), item_column)
    left = [profile for profile in columns if profile.name != item]
    user = next((p.name for p in left if USER.search(p.label)), None)
    left = [profile for profile in left if profile.name != user]
    time, unit = _time(left)
    label, why = _label([profile for profile in left if profile.name != time])
    roles = {name: role for name, role in ((item, "item"), (user, "user"), (time, f"time ({unit})")) if name}
    return Log(user, item, time, unit, label, why, roles)


def _item(columns: list[Profile], items: set[str], item_column: str | None) -> str | None:
    """The column that is named as the catalogue's id or as an item, else the one whose values are ids of the catalogue.

    Names count first, since numbers of users may be numbers of items, too.
    """
    named = [p.name for p in columns if p.name == item_column] or [p.name for p in columns if ITEM.search(p.label)]
    if named:
        return named[0]
    others = [p for p in columns if p.is_scalar and p.strings and not USER.search(p.label)]
    known = {p.name: fmean(value in items for value in p.strings) for p in others}
    best = max(known, key=lambda name: known[name], default=None)
    return best if best is not None and known[best] > 0.5 else None


def _time(columns: list[Profile]) -> tuple[str | None, str | None]:
    """The column of times and its unit, judged by the values."""
    units = {profile.name: _unit(profile) for profile in columns}
    named = [p.name for p in columns if TIME.search(p.label) and units[p.name]]
    typed = [p.name for p in columns if units[p.name] == "timestamp"]
    name = next(iter([*named, *typed]), None)
    return name, units[name] if name else None


def _unit(profile: Profile) -> str | None:
    if profile.kind.startswith(("timestamp", "date")) or profile.share(DATE) > 0.9:
        return "timestamp"
    numbers = profile.numbers()
    middle = median(numbers) / YEAR if numbers else 0
    if FIRST <= middle < LAST:
        return "s"
    return "ms" if FIRST <= middle / 1000 < LAST else None


def _label(columns: list[Profile]) -> tuple[str | None, str | None]:
    """A Spark SQL expression, and the reason for it in words."""
    for profile in columns:
        values, name = {value.lower() for value in profile.strings}, profile.expression
        if YES_NO.search(profile.label) and values and values <= {"0", "1", "0.0", "1.0", "true", "false"}:
            is_flag = values <= {"true", "false"}
            return (f"{name} = true" if is_flag else f"try_cast({name} AS double) = 1"), "it is yes or no"
    for profile in columns:
        numbers = profile.numbers()
        if RATING.search(profile.label) and numbers and max(numbers) > min(numbers):
            bound = round(0.6 * max(numbers), 2)
            return f"try_cast({profile.expression} AS double) > {bound:g}", f"ratings go up to {max(numbers):g}"
    for profile in columns:
        numbers = profile.numbers()
        if DWELL.search(profile.label) and numbers and max(numbers) > min(numbers):
            middle = f"{median(numbers):g}"
            return (
                f"try_cast({profile.expression} AS double) > {middle}",
                f"half of the first rows are above {middle}",
            )
    for profile in columns:
        kinds = sorted({*profile.strings})
        good = [kind for kind in kinds if GOOD_KIND.search(kind)]
        if KIND.search(profile.label) and good and 1 < len(kinds) <= 20:
            listed = ", ".join("'" + kind.replace("'", "\\'") + "'" for kind in good)
            return f"{profile.expression} IN ({listed})", f"there are {', '.join(kinds)}"
    return None, None

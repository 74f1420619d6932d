"""What the columns of a catalogue are: the id, the words of the template, the picture."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.inspect.guess.columns import DATE, LETTERS, PICTURE, URL, Profile, looks_like_picture
from pipeline.inspect.guess.vectors import Vectors, guess_vectors

ID_NAMES = (
    re.compile(
        r"^(item|product|article|artikel|produkt|parent|movie|film|video|news|book|track)?_?(id|asin|sku|gtin|ean)$"
    ),
    re.compile(
        r"^(item|product|article|artikel|produkt|art)_?(no|nr|nummer|number|code|key)$|^(isbn|uuid|key|code|nr)$"
    ),
    re.compile(r"_?(id|nummer|number)$"),
)
TITLE = re.compile(r"^(.*_)?(title|titel|name|bezeichnung|headline|produktname)$")
LONG_NAMES = re.compile(r"description|beschreibung|^text$|plot|abstract|body|summary|overview|inhalt|content")
LONG = 80  # characters that a text has on average
ID_LENGTH = 64
MOST_WORDS = 8  # columns of a template
FOLDERS = 200  # looked into for pictures


@dataclass(frozen=True)
class Picture:
    """A column of pictures: ``bytes``, ``path`` or ``url``; the folder that paths lie under, the hosts of URLs."""

    column: str
    kind: str
    root: Path | None = None
    hosts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Catalogue:
    """What each column of a catalogue is taken for."""

    id: str | None
    text: list[str]
    left_out: list[str]  # that could stand in the template, too
    picture: Picture | None
    vectors: dict[str, Vectors]
    roles: dict[str, str] = field(default_factory=dict)  # by column, in words


def guess_catalogue(columns: list[Profile], source: str) -> Catalogue:
    """A guess by the names of the columns and their first values.

    Args:
        columns: of the source.
        source: its path, beside or under which pictures are looked for.
    """
    item_id = _id(columns)
    rest = [profile for profile in columns if profile.name != item_id]
    vectors, picture = guess_vectors(rest), _picture(rest, source)
    text, left_out = _words(rest)
    roles = dict.fromkeys(text, "text")
    roles |= {found.column: f"vectors of the {modality}" for modality, found in vectors.items()}
    roles |= {picture.column: f"picture ({picture.kind})"} if picture else {}
    roles |= {item_id: "id"} if item_id else {}
    return Catalogue(item_id, text, left_out, picture, vectors, roles)


def template(columns: list[str]) -> str:
    """``{title}. {brand}``."""
    return ". ".join(f"{{{column}}}" for column in columns)


def _id(columns: list[Profile]) -> str | None:
    """The best named of the columns that tell every row from the others, else the first one of short values."""
    unique = [p for p in columns if p.is_scalar and p.is_whole and max(map(len, p.strings)) <= ID_LENGTH]
    for names in ID_NAMES:
        named = [profile.name for profile in unique if names.search(profile.label)]
        if named:
            return named[0]
    short = [p.name for p in unique if not p.share(re.compile(r"\s")) and not looks_like_picture(p)]
    return short[0] if short else None


def _words(columns: list[Profile]) -> tuple[list[str], list[str]]:
    """Columns of the template, title first and long texts last, and those that would be too many."""
    spoken = [profile for profile in columns if _is_spoken(profile)]
    titles = [p for p in spoken if TITLE.search(p.label) and p.length < LONG]
    long = [p for p in spoken if p not in titles and (p.length >= LONG or LONG_NAMES.search(p.label))]
    short = [p for p in spoken if p not in titles and p not in long]
    ordered = [p.name for p in (*titles, *short[: max(0, MOST_WORDS - len(titles) - len(long))], *long)]
    return ordered, [p.name for p in spoken if p.name not in ordered]


def _is_spoken(profile: Profile) -> bool:
    """Whether a column holds words: neither numbers, codes, dates, addresses nor yes and no."""
    if profile.kind not in ("string", "array<string>") or looks_like_picture(profile):
        return False
    if set("{}:!`") & set(profile.name):  # which a template cannot name
        return False
    if profile.share(LETTERS) < 0.5 or any(profile.share(each) > 0.5 for each in (URL, PICTURE, DATE)):
        return False
    different = {value.lower() for value in profile.strings}
    is_code = len(different) > 0.9 * len(profile.strings) and profile.share(re.compile(r"^\S*\d\S*$")) > 0.5
    return not is_code and (len(different) > 2 or profile.length >= LONG or bool(TITLE.search(profile.label)))


def _picture(columns: list[Profile], source: str) -> Picture | None:
    """The first column of pictures; one whose files are there, or of bytes, before one of addresses."""
    found = []
    for profile in columns:
        kind = looks_like_picture(profile)
        if kind:
            root = _root(profile, source) if kind == "path" else None
            found.append(Picture(profile.name, kind, root, _hosts(profile) if kind == "url" else []))
    ready = [picture for picture in found if picture.kind == "bytes" or picture.root]
    return next(iter([*ready, *found]), None)


def _hosts(profile: Profile) -> list[str]:
    """The hosts of the URLs, with the ports that they name."""
    found = set()
    for url in filter(URL.search, profile.firsts):
        with suppress(ValueError):  # no URL
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
            found |= {f"{parts.hostname}{port}"} if parts.hostname else set()
    return sorted(found)


def _root(profile: Profile, source: str) -> Path | None:
    """The folder under which the first paths lie: that of the source, or one beside or under it."""
    if "://" in source:
        return None
    place = Path(source).resolve()
    home = place if place.is_dir() else place.parent
    folders = [home, *sorted(f for f in home.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))[:FOLDERS]]
    for folder in [*folders, home.parent]:
        if any((folder / path).is_file() for path in profile.firsts[:20] if not path.startswith("/")):
            return folder
    return None

"""An item's canonical text: a template over its columns; Unicode NFC, markup stripped, white space folded.

Every step takes time linear in the text, whatever is in it.
"""

import html
import re
import unicodedata
from collections.abc import Mapping
from string import Formatter

MAX_REPLACED = 0.05  # share of U+FFFD in a text past which it says nothing reliable

MAX_MARKS = 30  # combining marks on one character, as Unicode's stream-safe form has it

_SPACE = re.compile(r"\s+")
_OPENING = re.compile(r"<(?:(script|style)\b|(!--)|[A-Za-z/!?])", re.IGNORECASE)
_CLOSING = {
    "script": re.compile(r"</script\b", re.I),
    "style": re.compile(r"</style\b", re.I),
    "!--": re.compile("-->"),
}
_TAG_END = re.compile(r"""(?:[^>"']++|"[^"]*"|'[^']*')*+>""")
_NUMBER = re.compile(r"&#\d{20,};?")  # no character, and int() refuses thousands of digits
_LEADING = re.compile(r"^[\W_]+")
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")  # controls (NUL, bidirectional, zero width), surrogates, unassigned
_JOINER = "\u200d"  # joins emoji and scripts such as Devanagari: part of the text, not hidden in it


class TextFault(Exception):
    """A text that cannot be used; the message says why."""


class Template:
    """``{title}. {genres}``: columns and the literals between them.

    A column without a value leaves nothing behind: the literal before it goes with it.

    Raises:
        ValueError: the braces do not match, or a field is more than a column's name.
    """

    def __init__(self, template: str) -> None:
        self._pairs: list[tuple[str, str | None]] = []
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{template!r}: {error}; a brace of the text itself is written twice") from error
        for literal, field, spec, conversion in parsed:
            if field is not None and (not field or spec or conversion):
                raise ValueError(f"{template!r}: a field is a column's name in braces, such as {{title}}")
            self._pairs.append((literal, field))

    @property
    def columns(self) -> list[str]:
        """The columns that the template names, in order, each once."""
        return list(dict.fromkeys(field for _, field in self._pairs if field is not None))

    def fill(self, values: Mapping[str, str | None]) -> str:
        """The text of one item; empty where no column has a value."""
        parts: list[str] = []
        missing_first = False
        for literal, field in self._pairs:
            value = values.get(field) if field is not None else ""
            if value is None or (field is not None and not value):
                missing_first = missing_first or not parts
                continue
            if field is None and not parts:
                continue
            parts.append(literal + (value or ""))
        text = "".join(parts)
        return _LEADING.sub("", text) if missing_first else text


def clean(value: str | None, max_chars: int) -> str | None:
    """One field as canonical text of at most ``max_chars`` characters; ``None`` where nothing is left.

    Raises:
        TextFault: much of it is replacement characters, so it was not in the encoding it was read in.
    """
    if not value:
        return None
    value = value[: 4 * max_chars]  # markup and white space count before they go, but not without bound
    return fold(html.unescape(_NUMBER.sub(" ", _without_tags(value))), max_chars)


def fold(value: str, max_chars: int) -> str | None:
    """:func:`clean` for text that has no markup.

    Raises:
        TextFault: as there.
    """
    value = unicodedata.normalize("NFC", _few_marks(value))
    value = "".join(c for c in value if c == _JOINER or c.isspace() or unicodedata.category(c) not in _HIDDEN)
    value = _SPACE.sub(" ", value).strip()[:max_chars].rstrip()
    if value.count("\ufffd") > MAX_REPLACED * len(value):
        raise TextFault("more than 5 % of the characters could not be decoded: is the file UTF-8?")
    return value or None


def _few_marks(value: str) -> str:
    """``value`` with at most :data:`MAX_MARKS` combining marks in a row: putting n in order takes time n²."""
    if value.isascii():
        return value
    kept, marks = [], 0
    for character in value:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _without_tags(value: str) -> str:
    """What stands outside tags, comments, scripts and style sheets, each of them a space.

    A tag that never ends is text, a comment or script that never ends hides what follows. Quotes that never end are
    none. (:mod:`html.parser` takes time n² for tags that never end, and its output changes with Python's version.)
    """
    parts: list[str] = []
    at, quotes = 0, True
    while opening := _OPENING.search(value, at):
        end = opening.end()
        if hidden := opening[1] or opening[2]:
            closing = _CLOSING[hidden.lower()].search(value, end)
            if closing is None:
                return "".join([*parts, value[at : opening.start()]])
            end = closing.end()
        if not opening[2]:
            closed = _TAG_END.match(value, end) if quotes else None
            quotes = closed is not None
            end = closed.end() if closed else value.find(">", end) + 1
        if not end:
            break
        parts += [value[at : opening.start()], " "]
        at = end
    return "".join([*parts, value[at:]])

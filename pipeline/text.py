"""An item's canonical text: a template over its columns; Unicode NFC, markup stripped, white space folded."""

import re
import unicodedata
from collections.abc import Mapping
from html.parser import HTMLParser
from string import Formatter

MAX_REPLACED = 0.05  # share of U+FFFD in a text past which it says nothing reliable

_SPACE = re.compile(r"\s+")
_MARKUP = re.compile(r"<[A-Za-z/!?]|&#?\w+;")
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
        for literal, field, spec, conversion in Formatter().parse(template):
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
    """``value`` as canonical text of at most ``max_chars`` characters; ``None`` where nothing is left.

    Raises:
        TextFault: much of it is replacement characters, so it was not in the encoding it was read in.
    """
    if not value:
        return None
    value = value[: 4 * max_chars]  # markup and white space count before they go, but not without bound
    if _MARKUP.search(value):
        value = _strip_markup(value)
    value = unicodedata.normalize("NFC", value)
    value = "".join(c for c in value if c == _JOINER or c.isspace() or unicodedata.category(c) not in _HIDDEN)
    value = _SPACE.sub(" ", value).strip()[:max_chars].rstrip()
    if value.count("\ufffd") > MAX_REPLACED * len(value):
        raise TextFault("more than 5 % of the characters could not be decoded: is the file UTF-8?")
    return value or None


class _Markup(HTMLParser):
    """Collects the text of HTML, without what scripts and style sheets say."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden = max(0, self._hidden - 1)
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _strip_markup(value: str) -> str:
    parser = _Markup()
    try:
        parser.feed(value)
        parser.close()
    except AssertionError:  # html.parser's word for a declaration that never ends
        return value
    return "".join(parser.parts)

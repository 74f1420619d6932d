"""The findings as one HTML page that needs nothing else, and that nothing in the findings can make do anything.

Jinja escapes every text. The page's policy lets no script and no style run but those whose hashes it lists, and loads
nothing but pictures that it holds: so markup in a title stays text, and would stay dead if it did not.
"""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.inspect.report.charts import charts
from pipeline.inspect.report.gather import Findings
from schemas.semantic_id import MODALITIES

PACKAGE = "pipeline.inspect.report"
LONGEST_ID = 64  # characters; report.json has all
BY_PLOTLY = Markup("")  # it makes empty style elements, and writes rules into them as scripts may
BUNDLED_STYLE = re.compile(
    r'getElementById\("([0-9a-f]{64})"\)'
)  # that of its maps of the earth, laid unless it is there


def page(found: Findings) -> str:
    """The whole page."""
    style, script = (_inline(PACKAGE, f"templates/{name}") for name in ("page.css", "page.js"))
    scripts = [_inline("plotly", "package_data/plotly.min.js"), script]
    environment = Environment(
        loader=PackageLoader(PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": count, "figure": figure, "share": share, "seconds": seconds, "short": short}
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(
        found.data,
        charts=charts(found.data),
        pictures=found.pictures,
        points=_points(found.data),
        style=style,
        scripts=scripts,
        taken=BUNDLED_STYLE.findall(scripts[0]),
        policy=_policy([style, BY_PLOTLY], scripts),
        modalities=MODALITIES,
    )


def _points(data: dict[str, Any]) -> list[list[Any]]:
    """Of each item of the map what the page shows when it is pointed at: text, id, codes, number of its picture."""
    drawn = data["space"]["map"] if "space" in data else None
    cards = [(point["card"], point["sid"]) for point in drawn["points"]] if drawn else []
    return [[card["text"], short(card["item_id"]), sid, card["picture"]] for card, sid in cards]


def short(text: str) -> str:
    """An id, or as much of it as a page can show."""
    return text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 1]}…"


def count(value: Any) -> str:
    """A whole number with thousands apart."""
    return "–" if value is None else f"{value:,}"


def figure(value: Any) -> str:
    """A number with four digits that count."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def share(value: Any) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{value:.1%}"


def seconds(value: Any) -> str:
    """A time that people read."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:,.1f} s"
    return f"{value / 60:,.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def _inline(package: str, name: str) -> Markup:
    """A file of ours or of Plotly's that goes between tags as it is."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - it holds nothing of a lake


def _policy(styles: list[Markup], scripts: list[Markup]) -> str:
    listed = {"style-src": styles, "script-src": scripts}
    hashed = [f"{kind} {' '.join(_hash(text) for text in texts)}" for kind, texts in listed.items()]
    return "; ".join(["default-src 'none'", "img-src data:", *hashed, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

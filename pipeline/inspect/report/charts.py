"""The page's charts as Plotly's JSON: data and layout, but for colours, which the page takes from its theme.

No text of the catalogue goes into a chart, and :func:`plain` takes the meaning out of what Plotly would read as markup.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Chart = dict[str, Any]

LONGEST = 24  # characters of a name in a legend
COLOURED = 10  # first codes that have a colour of their own on the map; as many as the page's palette has
MEASURES = ("auc", "gauc", "log_loss")
SLICES = {"slices": "seen {}× in training", "by_history": "after {} items", "by_missing": "missing: {}"}


def charts(data: Mapping[str, Any]) -> dict[str, Chart]:
    """The charts that the data allow, by name."""
    found: dict[str, Chart | None] = {"cost": _cost(data["costs"]), "trend": _trend(data["costs"])}
    if "levels" in data:
        found |= {"perplexity": _perplexity(data["levels"]), "use": _use(data["levels"])}
        found |= {
            "map": _map(data["space"]["map"], data["codebooks"]["nodes"]),
            "kept": _kept(data["space"]["neighbours"]),
        }
        found |= {"consensus": _consensus(data["quality"]["consensus"]), "epochs": _epochs(data["ranker"]["epochs"])}
        figures = data["ranker"]["evaluation"]
        found |= {"references": _references(figures), "slices": _slices(figures)} if figures else {}
    return {name: chart for name, chart in found.items() if chart is not None}


def plain(text: Any) -> str:
    """Text that Plotly shows as it is: it knows some of HTML's tags and entities, and TeX between dollars."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def _chart(data: list[dict[str, Any]], x: str = "", y: str = "", **layout: Any) -> Chart:
    axes = {"xaxis": {"title": {"text": x}, "automargin": True}, "yaxis": {"title": {"text": y}, "automargin": True}}
    for name, axis in axes.items():
        axis |= layout.pop(name, {})
    return {"data": data, "layout": axes | layout}


def _bars(name: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {"type": "bar", "name": plain(name), "x": list(x), "y": list(y), **more}


def _line(name: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines+markers", "name": plain(name), "x": list(x), "y": list(y), **more}


def _perplexity(levels: Sequence[Mapping[str, Any]]) -> Chart:
    slots = [level["slot"] for level in levels]
    bars = [
        _bars("codes of the codebook", slots, [level["codes"] for level in levels]),
        _bars("codes used", slots, [level["used"] for level in levels]),
        _bars("perplexity", slots, [round(level["perplexity"], 2) for level in levels]),
    ]
    return _chart(bars, "", "codes", barmode="group")


def _use(levels: Sequence[Mapping[str, Any]]) -> Chart:
    lines = [
        _line(level["slot"], [p["rank"] for p in level["curve"]], [p["items"] for p in level["curve"]], mode="lines")
        for level in levels
    ]
    log = {"type": "log", "dtick": 1}
    return _chart(lines, "code, the most frequent first", "items", xaxis=log, yaxis=log)


def _map(found: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]]) -> Chart | None:
    """A trace a frequent first code, and one of all others; ``customdata`` are places in the list of points."""
    if found is None:
        return None
    points = found["points"]
    sizes: dict[int, int] = {}
    for point in points:
        sizes[point["code"]] = sizes.get(point["code"], 0) + 1
    frequent = sorted(sizes, key=lambda code: (-sizes[code], code))[:COLOURED]
    groups: dict[int | None, list[int]] = {None: []} | {code: [] for code in frequent}
    for number, point in enumerate(points):
        groups[point["code"] if point["code"] in frequent else None].append(number)
    words = {node["name"]: " ".join([node["name"], *node["words"][:1]]) for node in nodes}
    traces = []
    for code, numbers in groups.items():
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": "other codes" if code is None else plain(words.get(f"s{code}", f"s{code}")[:LONGEST]),
            "x": [points[n]["x"] for n in numbers],
            "y": [points[n]["y"] for n in numbers],
            "customdata": numbers,
            "hoverinfo": "none",
            "marker": {"size": 6, "opacity": 0.45 if code is None else 0.85},
            "faint": code is None,
        }
        traces += [trace] if numbers else []
    x, y = (f"component {n} ({share:.0%} of the variance)" for n, share in enumerate(found["variance"], start=1))
    return _chart(traces, x, y, hovermode="closest", zooms=True)


def _kept(found: Mapping[str, Any] | None) -> Chart | None:
    if found is None:
        return None
    names = [f"first {level['codes']}" if level["codes"] > 1 else "first code" for level in found["levels"]]
    bars = [
        _bars(f"nearest {found['nearest']} by vector", names, [level["kept"] for level in found["levels"]]),
        _bars("any two items", names, [level["chance"] for level in found["levels"]]),
    ]
    return _chart(bars, "shared codes in common", "share of pairs", barmode="group", yaxis=_SHARE)


def _consensus(found: Mapping[str, Any] | None) -> Chart | None:
    if found is None:
        return None
    slots = [level["slot"] for level in found["levels"]]
    bars = [
        _bars("text and picture agree", slots, [level["agreement"] for level in found["levels"]]),
        _bars("by chance", slots, [level["chance"] for level in found["levels"]]),
    ]
    return _chart(bars, "all shared codes up to", "share of items", barmode="group", yaxis=_SHARE)


def _epochs(epochs: Sequence[Mapping[str, Any]] | None) -> Chart | None:
    if not epochs:
        return None
    x = [epoch["epoch"] + 1 for epoch in epochs]
    lines = [_line("training", x, [epoch["loss"] for epoch in epochs])]
    watched = [epoch.get("validation") for epoch in epochs]
    lines += [_line("watched", x, watched)] if any(value is not None for value in watched) else []
    return _chart(lines, "epoch", "mean cross-entropy", xaxis={"dtick": 1})


def _references(figures: Mapping[str, Any]) -> Chart:
    parts = {"the ranker": figures, **figures["references"]}
    return _chart(
        [_measured(measure, parts) for measure in ("auc", "gauc")], "", "", barmode="group", yaxis={"range": [0.4, 1]}
    )


def _slices(figures: Mapping[str, Any]) -> Chart:
    parts = {name.format(kind): part for by, name in SLICES.items() for kind, part in figures[by].items()}
    sized = {name: part for name, part in parts.items() if part["impressions"]}
    return _chart(
        [_measured("gauc", sized), _measured("auc", sized)], "", "", barmode="group", yaxis={"range": [0.4, 1]}
    )


def _measured(measure: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    values = [part[measure] for part in parts.values()]
    ends = [
        part["intervals"].get(measure) or (value, value) for part, value in zip(parts.values(), values, strict=True)
    ]
    known = [
        (value, end) if value is not None else (None, (None, None)) for value, end in zip(values, ends, strict=True)
    ]
    error = {
        "type": "data",
        "symmetric": False,
        "array": [end[1] - value if value is not None else None for value, end in known],
        "arrayminus": [value - end[0] if value is not None else None for value, end in known],
        "thickness": 1,
        "width": 3,
    }
    return _bars(measure.upper(), [plain(name) for name in parts], values, error_y=error)


def _cost(jobs: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The newest run of every job, a bar of its phases."""
    if not jobs:
        return None
    newest = {plain(each["job"]): each["runs"][-1]["phases"] for each in reversed(jobs)}
    total: dict[str, float] = {}
    for phases in newest.values():
        for phase, seconds in phases.items():
            total[phase] = total.get(phase, 0.0) + seconds
    long = sorted(total, key=lambda phase: (-total[phase], phase))[: COLOURED - 1]
    shorter = [sum(s for phase, s in phases.items() if phase not in long) for phases in newest.values()]
    named = {phase: [phases.get(phase, 0) for phases in newest.values()] for phase in long}
    bars = [_bars(phase, x, list(newest), orientation="h") for phase, x in named.items()]
    bars.append(_bars("shorter phases", shorter, list(newest), orientation="h", faint=True))
    return _chart(bars, "seconds", "", barmode="stack", rows=len(newest))


def _trend(jobs: Sequence[Mapping[str, Any]]) -> Chart | None:
    lines = [
        _line(each["job"], [run["started"] for run in each["runs"]], [run["total"] for run in each["runs"]])
        for each in jobs
        if len(each["runs"]) > 1
    ]
    return _chart(lines, "", "seconds", xaxis={"type": "date"}, yaxis={"rangemode": "tozero"}) if lines else None


_SHARE = {"tickformat": ".0%", "rangemode": "tozero"}

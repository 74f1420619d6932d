"""The tables that commands print on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from pipeline.config.models import Config, Gates

MEASURES = ("auc", "gauc", "log_loss")
SLICES = {"slices": "seen {} times in training", "by_history": "after {} items", "by_missing": "missing: {}"}
LEVEL_COLUMNS = ("codes used", "perplexity", "kept without image", "kept without text", "bits both know")
MIGRATION_COLUMNS = ("items", "other number", "moved when renamed at best", "groups in common (AMI)")
QUALITY = {
    "items measured": ("items",),
    "text rebuilt (cosine)": ("reconstruction", "text"),
    "image rebuilt (cosine)": ("reconstruction", "image"),
    "nearest 10 kept, by text": ("neighbour_overlap", "text"),
    "nearest 10 kept, by image": ("neighbour_overlap", "image"),
    "nearest 10 kept, by both": ("neighbour_overlap", "joint"),
    "text's variance that image's shared codes explain": ("consensus", "explained", "text"),
    "image's variance that text's shared codes explain": ("consensus", "explained", "image"),
    "bits both modalities know": ("consensus", "bits"),
    "levels worth sharing": ("consensus", "levels_worth_sharing"),
}


def show_evaluation(figures: Mapping[str, Any]) -> None:
    """AUC, GAUC by request and log loss with their intervals, of all impressions, beside the cheapest rules, and in
    slices; the streamed figures, and calibration."""
    title = f"ranker {figures['ranker']} ({figures['arch']}, tokenizer {figures['tokenizer']})"
    table, references = _measures(title), figures["references"]
    _add_measures(table, "all, history frozen at each request", figures, figures)
    for name, part in references.items():
        _add_measures(table, f"by {name} alone", part, part)
    for name, part in references.items():
        _add_measures(table, f"the ranker less {name}", part["ranker_less"], part["ranker_less"]["differences"])
    for by, name in SLICES.items():
        table.add_section()
        for kind, part in figures[by].items():
            _add_measures(table, name.format(kind), part, part)
    table.add_section()
    _add_measures(table, "all, streamed, GAUC by user", figures["streamed"], figures["streamed"])
    for name, part in references.items():
        _add_measures(table, f"by {name}, streamed", part["streamed"], part["streamed"])
    console, found = Console(), figures["calibration"]
    console.print(table)
    requests = figures["gauc_groups"] + figures["one_class_groups"]
    each = figures["impressions"] / requests if requests else None
    lines = [
        f"calibration        error {_figure(found['error'])}, predicted / observed {_figure(found['ratio'])}",
        f"requests           {requests:,}, {_figure(each)} impressions each",
        f"left out of GAUC   {figures['one_class_groups']:,} requests of one class, "
        f"{figures['one_class_impressions']:,} impressions",
    ]
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def show_comparison(found: Mapping[str, Any]) -> None:
    """Differences of two rankers with their paired intervals, over all impressions, streamed, and by training count."""
    table = _measures("the first less the second")
    _add_measures(table, "all", found, found["differences"])
    _add_measures(table, "all, streamed", found["streamed"], found["streamed"]["differences"])
    for kind, part in found["slices"].items():
        _add_measures(table, SLICES["slices"].format(kind), part, part["differences"])
    Console().print(table)


def _measures(title: str) -> Table:
    columns = (Column(name, justify="right") for name in ("impressions", *MEASURES))
    of = Column("impressions of items", overflow="fold")
    return Table(of, *columns, title=title, title_justify="left")


def _add_measures(table: Table, name: str, part: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """A row: each measure with its interval below it."""
    intervals = (part["intervals"][measure] for measure in MEASURES)
    cells = (
        _figure(measured[measure]) + (f"\n{_figure(ends[0])} to {_figure(ends[1])}" if ends else "")
        for measure, ends in zip(MEASURES, intervals, strict=True)
    )
    table.add_row(name, _figure(part["impressions"]), *cells)


def show_tokenizer(metrics: Mapping[str, Any]) -> None:
    """Use of every level's codes, and what was measured on held-out and on training items."""
    splits = {"held-out": metrics.get("held_out"), "train": metrics["train"]}
    measured = {name: found for name, found in splits.items() if found is not None}
    console = Console()
    name, best = next(iter(measured.items()))
    console.print(_levels(metrics["levels"], best, f"codes of all items; of {name} items, what is kept and known"))
    console.print(_quality(measured))
    repeated = metrics["collisions"]
    lines = [
        f"repeated codes     {repeated['rate']:.2%} of {metrics['items']:,} items "
        f"({repeated['from_identical_content']:.2%} repeat the content)"
    ]
    told = {pair.replace("_", "–"): value for pair, value in metrics["information"].items() if value is not None}
    if told:
        lines.append(f"parts in common    {', '.join(f'{pair} {_figure(value)}' for pair, value in told.items())}")
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def _levels(levels: Sequence[Mapping[str, Any]], measured: Mapping[str, Any], title: str) -> Table:
    """The levels; of a shared one also how many items keep all codes up to it, and what both modalities know of it."""
    columns = (Column(name, justify="right") for name in LEVEL_COLUMNS)
    table = Table("level", *columns, title=title, title_justify="left")
    kept, consensus = measured["codes_kept"], measured["consensus"]
    shared = iter(zip(kept["text_alone"], kept["image_alone"], consensus["levels"], strict=True) if consensus else ())
    for level in levels:
        cells = [level["slot"], f"{level['used']:,} ({level['used_share']:.0%})", f"{level['perplexity']:,.1f}"]
        if both := next(shared, None):
            text_alone, image_alone, known = both
            cells += [f"{text_alone:.0%}", f"{image_alone:.0%}", f"{known['bits']:.2f}"]
        table.add_row(*cells)
    return table


def _quality(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("measure", *(Column(name, justify="right") for name in measured))
    for name, path in QUALITY.items():
        table.add_row(name, *(_figure(_at(found, path)) for found in measured.values()))
    return table


def show_gates(checked: Mapping[str, Any], gates: "Gates") -> None:
    """Every gate of ``publish`` with its figure, its limit, and whether it holds."""
    from pipeline.release.gates import limits

    right = (Column(name, justify="right") for name in ("figure", "limit"))
    table = Table("gate", *right, "verdict")
    for limit in limits(gates):
        entry = checked.get(limit.gate)
        verdict = "not measured" if entry is None else "holds" if entry["ok"] else "[bold red]broken[/]"
        figure = None if entry is None else entry["figure"]
        table.add_row(limit.gate, _figure(figure), f"{limit.sign} {limit.value:g}", verdict)
    Console().print(table)


def show_migration(found: Mapping[str, Any]) -> None:
    """What moving from the released tokenizer to another would mean, level by level."""
    columns = (Column(name, justify="right") for name in MIGRATION_COLUMNS)
    title = f"from the released tokenizer {found['released']} to {found['tokenizer']}"
    table = Table("level", *columns, title=title, title_justify="left")
    for level in found["levels"]:
        shares = (_share(level.get(name)) for name in ("renumbered", "moved"))
        table.add_row(level["slot"], _figure(level["items"]), *shares, _figure(level.get("prefix_information")))
    console = Console()
    console.print(table)
    rates = (_share(found["collision_rate"][found[name]]) for name in ("released", "tokenizer"))
    lines = [
        f"items              {found['items']:,} have IDs of both, {found['released_alone']:,} of the released alone, "
        f"{found['tokenizer_alone']:,} of the new alone, {found['without_either']:,} of neither",
        f"collisions         {' → '.join(rates)} of items share their codes with other content",
    ]
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def show_demo(folder: Path, config: "Config", tokenizer: str, ranker: str, seconds: float) -> None:
    """Where the demo's results lie."""
    lake = Path(config.lake)
    table = Table("what", "where", title=f"demo done in {seconds:.0f} s", title_justify="left")
    places = {
        "catalogue, pictures, clicks": folder,
        "true factors of every item": folder / "factors.csv",
        "configuration": folder / "config.yaml",
        "tables (Delta)": lake,
        "semantic IDs": lake / "semantic_ids",
        "tokenizer": lake / "tokenizers" / tokenizer,
        "ranker": lake / "rankers" / ranker,
        "run records": lake / "runs",
    }
    for what, where in places.items():
        table.add_row(what, str(where))
    Console(width=max(100, Console().width)).print(table)


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _at(found: Any, path: Sequence[str]) -> Any:
    for key in path:
        found = None if found is None else found[key]
    return found

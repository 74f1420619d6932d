"""The tables that commands print on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.config import Config

MEASURES = ("impressions", "auc", "gauc", "log_loss")


def show_evaluation(figures: Mapping[str, Any]) -> None:
    """AUC, GAUC and log loss of all impressions, and of items by how often training saw them."""
    table = Table("items seen in training", *MEASURES)
    rows = {"all": figures, **{f"{name} times": part for name, part in figures["slices"].items()}}
    for name, part in rows.items():
        table.add_row(name, *(_figure(part[measure]) for measure in MEASURES))
    Console().print(table)


def show_tokenizer(metrics: Mapping[str, Any]) -> None:
    """Use of every level's codes, and what was measured on held-out items."""
    table = Table("level", "codes used", "perplexity")
    for level in metrics["levels"]:
        table.add_row(level["slot"], f"{level['used']} ({level['used_share']:.0%})", _figure(level["perplexity"]))
    console = Console()
    console.print(table)
    for name, value in _flat(metrics.get("held_out", metrics["train"])):
        console.print(f"  {name}: {_figure(value)}", highlight=False)


def show_status(found: Mapping[str, Any]) -> None:
    """What ``pipeline.status.status`` found."""
    console = Console()
    table = Table("table", "version", "rows", title=found["lake"], title_justify="left")
    for name, entry in found["tables"].items():
        table.add_row(name, _figure(entry["version"]), _figure(entry["rows"]))
    console.print(table)
    release = found["released"]
    console.print(f"live items   {found['live_items']:,}")
    console.print(f"encoders     {found['encoder']}")
    console.print(f"tokenizers   {', '.join(found['tokenizers']) or 'none'}")
    console.print(f"rankers      {', '.join(found['rankers']) or 'none'}")
    console.print(
        f"released     {release['tokenizer']} (release {release['version']})" if release else "released     nothing"
    )
    console.print(f"waiting      {', '.join(f'{job} {n:,}' for job, n in found['waiting'].items())}")
    console.print(f"last runs    {', '.join(found['runs']) or 'none'}")


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        rows += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)]
    return rows

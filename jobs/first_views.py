"""What ``init`` and ``check`` print: a source's columns, and what becomes of its first rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from schemas.reasons import Reason

if TYPE_CHECKING:
    from pipeline.inspect.guess.look import Seen

TEXT = 90  # characters of a text
REMEDIES = {reason.value: reason.remedy for reason in Reason}
BECOMES = {"new": "become items", "repeated": "say the same again", "conflicting": "say otherwise again"}


def show_sources(seen: "Sequence[Seen]") -> None:
    """The columns of each source, their first value, and what they are taken for."""
    console = Console()
    for source in seen:
        title = f"{source.path}: {source.rows:,} rows"
        table = Table("column", "type", Column("filled", justify="right"), "such as", "taken for", title=Text(title))
        for column in source.columns:
            filled = f"{len(column.present) / max(1, len(column.values)):.0%}"
            role = source.roles.get(column.name, "–")
            table.add_row(Text(column.name), Text(column.kind), filled, Text(column.example), role)
        table.title_justify = "left"
        console.print(table)


def show_check(found: Mapping[str, Any]) -> None:
    """What ``pipeline.inspect.check.check`` found."""
    console = Console()
    said = [f"{n:,} {BECOMES.get(status, 'are quarantined')}" for status, n in sorted(found["status"].items())]
    _say(console, f"{found['rows']:,} rows: {', '.join(said) or 'none to take'}")
    _say(console, f"texts {found['texts']:,}, pictures {found['pictures']:,}, vectors {found['vectors']:,}")
    faults = Table(
        Column("reason", no_wrap=True), Column("items", justify="right"), "such as", "what to do", title="faults"
    )
    for fault in found["faults"]:
        example = fault["example"]
        detail = Text(_cut(f"{example['item_id'] or '(no id)'}: {example['detail']}"))
        faults.add_row(fault["reason"], f"{fault['items']:,}", detail, REMEDIES[fault["reason"]])
    _print(console, faults)
    items = Table("item", "text", "picture", Column("vectors", no_wrap=True), title="items as they would be stored")
    for item in found["items"]:
        picture = "–" if item["image_bytes"] is None else decimal(item["image_bytes"])
        widths = [f"{m} {item[f'{m}_width']}" for m in ("text", "image") if item[f"{m}_width"] is not None]
        items.add_row(Text(item["item_id"]), Text(_cut(item["text"] or "–")), picture, ", ".join(widths) or "–")
    _print(console, items)
    if found["refused"]:
        _say(console, "extract would refuse this: too many rows lost a modality, see gates.max_degraded_fraction")
    elif found["status"].get("new"):
        _say(console, "nothing was written; the first night is: hisam nightly")
    else:
        _say(console, "no row becomes an item: mend the source or the configuration first")


def _print(console: Console, table: Table) -> None:
    if table.row_count:
        table.title_justify = "left"
        console.print(table)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT else f"{line[: TEXT - 1]}…"

"""What the commands that look into a lake print on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from pipeline.release.vacuum import Leftover

SHORT = 12  # of a hash, enough to tell an item's versions apart
TEXT = 90  # characters of a text
SENTENCE = 500  # of why a run failed
LISTED = 50  # files of a dry run; the rest is counted


def show_status(found: Mapping[str, Any]) -> None:
    """What ``pipeline.inspect.status.status`` found."""
    console = Console()
    columns = (Column(name, justify="right") for name in ("version", "rows", "files", "size"))
    table = Table("table", *columns, title=found["lake"], title_justify="left")
    for name, entry in found["tables"].items():
        version = "–" if entry["version"] is None else str(entry["version"])
        table.add_row(name, version, f"{entry['rows']:,}", f"{entry['files']:,}", decimal(entry["bytes"]))
    console.print(table)
    console.print(_waiting(found["waiting"]))
    if found["runs"]:
        console.print(_runs(found["runs"]))
    release = found["released"]
    named = {
        "current items": f"{found['live_items']:,}",
        "encoders": ", ".join(f"{modality} {encoder}" for modality, encoder in found["encoders"].items()),
        "tokenizers": ", ".join(found["tokenizers"]) or "none",
        "rankers": ", ".join(found["rankers"]) or "none",
        "released": f"{release['tokenizer']} (release {release['version']})" if release else "nothing",
        "quarantine": ", ".join(f"{reason} {n:,}" for reason, n in found["quarantine"].items()) or "none",
    }
    _lines(console, named)


def _waiting(waiting: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("waiting", *(Column(name, justify="right") for name in ("to do", "should take")))
    table.add_row("extract", "only the source knows", "unknown")
    for job, work in waiting.items():
        seconds = "unknown" if work["seconds"] is None else _duration(work["seconds"])
        table.add_row(job, f"{work['items']:,}", seconds if work["items"] else "–")
    return table


def _runs(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("last run of", Column("run", no_wrap=True), Column("took", justify="right"), "ended")
    for job, run in runs.items():
        ended = f"{run['status']}: {run['error']}" if run["error"] else run["status"]
        table.add_row(job, run["run_id"], _duration(run["seconds"]), Text(ended[:SENTENCE]))
    return table


def show_item(found: Mapping[str, Any]) -> None:
    """What ``pipeline.inspect.explain.explain`` found."""
    console, release = Console(), found["release"]
    _lines(console, {"item": found["item_id"], "state": found["state"]})
    if release:
        said = (
            f"{release['version']}, {release['action']} of tokenizer {release['tokenizer']} at {_time(release['time'])}"
        )
        _lines(console, {"release": said})
    versions = Table("extracted", "content", "text", "picture", "vectors of encoders", title="versions")
    for version in found["versions"]:
        vectors = [_vector(vector) for vector in version["vectors"]]
        picture = (version["image_sha"] or "–")[:SHORT]
        text = "deleted" if version["deleted"] else _cut(version["text"])
        content = version["content"][:SHORT]
        versions.add_row(_time(version["extracted_at"]), content, Text(text), picture, "\n".join(vectors) or "none")
    _print(console, versions)
    whole = (Column(name, overflow="fold") for name in ("ID", "tokenizer"))
    ids = Table(*whole, "content", "its encoders", "run", "released", title="IDs")
    for row in found["ids"]:
        mark = "yes" if row["released"] else ""
        known = "\n".join(f"{modality} {encoder}" for modality, encoder in (row["encoders"] or {"–": ""}).items())
        ids.add_row(row["sid"], row["tokenizer"], row["content"][:SHORT], known, row["run_id"], mark)
    _print(console, ids)
    faults = Table("reason", "detail", "since", "source", title="quarantine")
    for row in found["quarantine"]:
        faults.add_row(row["reason"], Text(_cut(row["detail"])), _time(row["seen_at"]), Text(row["source"]))
    _print(console, faults)
    words = Table("prefix", Column("other items", justify="right"), "say", "such as", title="its codes in words")
    for row in found["words"]:
        examples = "\n".join(f"{each['item_id']}  {_cut(each['text'])}" for each in row["examples"])
        prefix, count = f"{row['part']} {row['prefix']}", f"{row['items']:,}"
        words.add_row(prefix, count, Text(", ".join(row["words"])), Text(examples))
    _print(console, words)
    near = Table("item", "ID", "text", title="nearest by prefix")
    for row in found["neighbours"]:
        near.add_row(Text(row["item_id"]), row["sid"], Text(_cut(row["text"])))
    _print(console, near)


def show_leftovers(leftovers: Sequence["Leftover"], places: Mapping[str, Mapping[str, int]], *, dry_run: bool) -> None:
    """What ``pipeline.release.vacuum.vacuum`` deleted, or what it would delete."""
    console = Console()
    if dry_run:
        for each in leftovers[:LISTED]:
            console.print(f"  {each.path}", highlight=False, soft_wrap=True, markup=False)
        if len(leftovers) > LISTED:
            console.print(f"  and {len(leftovers) - LISTED:,} more", highlight=False)
    columns = (Column(name, justify="right") for name in ("files", "size"))
    table = Table("would be deleted of" if dry_run else "deleted of", *columns)
    for place, freed in places.items():
        table.add_row(place, f"{freed['files']:,}", decimal(freed["bytes"]))
    if not places:
        table.add_row("nothing", "0", decimal(0))
    console.print(table)


def _print(console: Console, table: Table) -> None:
    if table.row_count:
        table.title_justify = "left"
        console.print(table)


def _lines(console: Console, named: Mapping[str, str]) -> None:
    width = max(map(len, named))
    for name, value in named.items():
        console.print(f"{name:{width}}  {value}", highlight=False, soft_wrap=True, markup=False)


def _vector(vector: Mapping[str, Any]) -> str:
    failed = " failed" if vector["fault"] else ""
    return f"{vector['modality']} {vector['encoder']}{failed}"


def _cut(text: str | None) -> str:
    line = " ".join((text or "–").split())
    return line if len(line) <= TEXT else f"{line[: TEXT - 1]}…"


def _time(time: Any) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"

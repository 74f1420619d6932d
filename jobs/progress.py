"""Progress of a training: a bar on a terminal, a line an epoch elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # a long training says so often where there is no terminal


@contextmanager
def epochs(title: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """A function to call after every epoch: its number from 1, how many there are, and figures to show."""
    if not sys.stderr.isatty():
        yield lambda epoch, total, figures: _line(title, epoch, total, figures)
        return
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, said="")
        yield lambda epoch, total, figures: bar.update(task, completed=epoch, total=total, said=_said(figures))


def _line(title: str, epoch: int, total: int, figures: Mapping[str, float]) -> None:
    if epoch == total or epoch % max(1, total // LINES) == 0:
        typer.echo(f"{title}: epoch {epoch} of {total}, {_said(figures)}")


def _said(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())

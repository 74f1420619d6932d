"""Progress of a training: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # a training of many epochs says so often where there is no terminal
SECONDS = 60.0  # and so often within a long epoch


@contextmanager
def epochs(title: str) -> Iterator[Callable[[float, int, Mapping[str, float]], None]]:
    """A function to call after every epoch or within: epochs done, how many there are, and figures to show."""
    if not sys.stderr.isatty():
        yield _Lines(title)
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


class _Lines:
    """Says how far a training has come, but not too often."""

    def __init__(self, title: str) -> None:
        self.title, self.last = title, time.monotonic()

    def __call__(self, done: float, total: int, figures: Mapping[str, float]) -> None:
        chosen = done == total or (done == int(done) and done % max(1, total // LINES) == 0)
        if chosen or time.monotonic() - self.last >= SECONDS:
            self.last = time.monotonic()
            typer.echo(f"{self.title}: epoch {round(done, 2):g} of {total}, {_said(figures)}")


def _said(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())

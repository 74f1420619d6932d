"""Progress of a training: a bar on a terminal, lines of the run elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pipeline.lake.run import Run

Told = Callable[[float, int, Mapping[str, float]], None]


@contextmanager
def epochs(run: "Run") -> Iterator[Told]:
    """A function to call after every epoch or within: epochs done, how many there are, and figures to show."""
    from pipeline.lake.progress import bars

    with _bar(run.job) if bars() else _lines(run) as told:
        yield told


@contextmanager
def _bar(title: str) -> Iterator[Told]:
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, said="")

        def told(epoch: float, total: int, figures: Mapping[str, float]) -> None:
            bar.update(task, completed=epoch, total=total)
            if figures:  # within an epoch there may be none
                bar.update(task, said=_said(figures))

        yield told


@contextmanager
def _lines(run: "Run") -> Iterator[Told]:
    from pipeline.lake.progress import Done

    last: Done | None = None

    def told(epoch: float, total: int, figures: Mapping[str, float]) -> None:
        nonlocal last
        last = Done(epoch, total, "epochs", _said(figures) if figures or last is None else last.figures)

    with run.progress.of(lambda: last):
        yield told


def _said(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())

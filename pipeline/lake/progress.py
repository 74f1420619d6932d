"""What a long job says of itself where no terminal shows a bar: a line every half a minute."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.lake.phases import REST, Phases

logger = logging.getLogger(__name__)

LOG = "HISAM_LOG"  # of the environment: json for a JSON object a line, else text
SECONDS = 30.0  # between two lines
LOOK_SECONDS = 2.0  # between two looks, so that a rate counts from when the work began
FAST = 1.0  # a second; what is slower is told by the minute


@dataclass(frozen=True)
class Done:
    """How far a piece of work has come: of a ``total``, where that is known, in ``unit``; and what else to show."""

    done: float
    total: float | None
    unit: str
    figures: str = ""


def for_machines() -> bool:
    """Whether what is said is JSON."""
    return os.environ.get(LOG) == "json"


def bars() -> bool:
    """Whether engines and trainings show bars: someone looks on."""
    return sys.stderr.isatty() and not for_machines()


Probe = Callable[[], Done | None]


class Progress:
    """The lines of a job: its phase, what is done in it, at what rate, and how long the rest should take."""

    def __init__(self, job: str, phases: Phases, clock: Callable[[], float] = time.monotonic) -> None:
        self._job, self._phases, self._clock = job, phases, clock
        self._began = self._told = clock()
        self._probe: Probe | None = None
        self._piece: tuple[object, ...] = ()
        self._since, self._before = 0.0, 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def of(self, probe: Probe) -> Iterator[None]:
        """Ask ``probe``, in a thread of its own, for as long as the block lasts."""
        outer, self._probe = self._probe, probe
        try:
            yield
        finally:
            self._probe = outer

    def heard(self) -> None:
        """Something else was said of the work just now: the next line is due as long after it as after one."""
        self._told = self._clock()

    def start(self, speaks: Callable[[], bool]) -> None:
        """Log a line whenever one is due, while ``speaks`` says so, until :meth:`stop`."""

        def watch() -> None:
            while not self._ended.wait(LOOK_SECONDS):
                line, done = self.look()
                if line and speaks():
                    logger.info(line, extra={"fields": {"progress": vars(done)} if done else {}})

        self._thread = threading.Thread(target=watch, daemon=True, name="progress")
        self._thread.start()

    def stop(self) -> None:
        """End the thread that :meth:`start` began; one that waits for an engine is left behind."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LOOK_SECONDS)

    def look(self) -> tuple[str | None, Done | None]:
        """See how far the work has come; the line to say of it, if one is due."""
        now, phase, done = self._clock(), self._phases.current, self._done()
        where = self._job if phase == REST else f"{self._job}: {phase}"
        if done is not None:
            piece = (phase, done.unit, done.total)
            if piece != self._piece or done.done < self._before:
                self._piece, self._since, self._before = piece, now, done.done
        if now - self._told < SECONDS:
            return None, done
        self._told = now
        if done is None:
            return f"{where}: {_duration(now - self._began)} since the job began", None
        return f"{where}: {', '.join(self._said(done, now - self._since))}", done

    def _said(self, done: Done, seconds: float) -> Iterator[str]:
        yield _number(done.done) + (f" of {_number(done.total)}" if done.total is not None else "") + f" {done.unit}"
        if done.done > self._before:
            rate = (done.done - self._before) / seconds
            yield f"{rate:,.1f} a second" if rate >= FAST else f"{rate * 60:,.1f} a minute"
            if done.total is not None:
                yield f"{_duration((done.total - done.done) / rate)} left"
        if done.figures:
            yield done.figures

    def _done(self) -> Done | None:
        try:
            return self._probe() if self._probe else None
        except Exception:  # noqa: BLE001 - of an engine that ends or died; what became of it the job itself says
            return None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"

"""Progress on standard error: a live line on a terminal, plain lines everywhere else."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from bench.child import QUIET
from bench.units import render_duration

PLAIN_PERIOD_S = 15.0
DRAWN_S, DRAWN_SELDOM_S = 0.1, 2.0
"""Ten times a second takes 1 % of a core, so it is done seldom while the machine is the worker's."""

REST_COLUMNS = 44
"""Columns of the live line beside what it says: the sign of life, the bar and the times."""

WORDS = {
    "probe": "look for",
    "synthesize": "weights of",
    "reference": "reference:",
    "verify": "check files of",
    "prepare": "prepare",
    "certify": "certify:",
    "export": "export",
    "digest": "digests of",
    "ceiling": "probe read bandwidth",
    "wait for": "wait for",
    "cool": "cool down",
    "idle": "at rest:",
    "open": "load",
    "first-step": "first step",
    "gate": "gate: native precision",
    "read-back": "gate: codes read back",
    "consistency": "gate: timed shape",
    "warm-up": "warm up",
    "measure": "measure",
    "energy": "repeat for energy:",
}


class Times(ProgressColumn):
    """How long it has been going on and, where that is known, how long it still will."""

    def render(self, task: Task) -> Text:
        left_s = task.time_remaining
        text = f"{task.elapsed or 0:.0f} s" if (task.elapsed or 0) < 100 else render_duration(task.elapsed)
        return Text(text + (f", {render_duration(max(1.0, left_s))} left" if left_s else ""), no_wrap=True)


class Terminal:
    """The Watcher of a terminal; a context manager."""

    def __init__(self) -> None:
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            Times(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
        )
        self._task = self._live.add_task("", total=None)
        self._period_s, self._ended = DRAWN_S, threading.Event()
        self._artist = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Terminal:
        self._live.start()
        self._artist.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._artist.join()
        self._live.stop()

    def _draw(self) -> None:
        while not self._ended.wait(self._period_s):
            self._live.refresh()

    def phase(self, name: str, detail: str = "") -> None:
        said = Text(_said(name, detail))
        said.truncate(max(20, self._live.console.width - REST_COLUMNS), overflow="ellipsis")
        self._live.reset(self._task, description=said.plain, total=None)
        self._live.refresh()
        self._period_s = DRAWN_SELDOM_S if name in QUIET else DRAWN_S

    def progress(self, done: int, total: int) -> None:
        self._live.update(self._task, completed=done, total=total)

    def tick(self) -> None:
        pass

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Lines:
    """The Watcher of a log file: a line for each phase, and one every 15 s with the time left."""

    def __enter__(self) -> Lines:
        self._phase, self._began_s, self._said_s = "", time.monotonic(), time.monotonic()
        self._share: float | None = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def phase(self, name: str, detail: str = "") -> None:
        said = _said(name, detail)
        if said != self._phase:
            self.say(said)
        self._phase, self._share = said, None
        self._began_s = self._said_s = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        self._share = done / total if total else None
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._said_s < PLAIN_PERIOD_S:
            return
        self._said_s = now
        elapsed_s = now - self._began_s
        text = f"{self._phase}: {render_duration(elapsed_s)}"
        if self._share:
            left_s = elapsed_s * (1 - self._share) / self._share
            text += f", {self._share:.0%}, about {render_duration(left_s)} left"
        self.say(text)

    def say(self, text: str) -> None:
        click.echo(text, err=True)


def display() -> Terminal | Lines:
    """What suits standard error."""
    return Terminal() if Console(stderr=True).is_terminal else Lines()


def _said(name: str, detail: str) -> str:
    return f"{WORDS.get(name, name)} {detail}".strip()

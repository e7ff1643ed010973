"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_SECONDS = 5.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the number of events done and the number in all."""
    if sys.stderr.isatty():
        with _bar(verb) as update:
            yield update
    else:
        yield _Lines(verb)


@contextmanager
def _bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    with Progress(
        TextColumn(verb),
        BarColumn(),
        TaskProgressColumn(),
        _Events(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Events(ProgressColumn):
    """The number of events done, and how many a second once that is known."""

    def render(self, task: Task) -> Text:
        rate = f", {task.speed:,.0f}/s" if task.speed is not None else ""
        return Text(f"{task.completed:,.0f} events{rate}")


class _Lines:
    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = time.monotonic()
        self._due = self._began + PLAIN_SECONDS

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PLAIN_SECONDS
        rate = done / (now - self._began)
        left = (total - done) / rate if rate else 0.0
        sys.stderr.write(
            f"{self._verb}: {done:,} of {total:,} events, {rate:,.0f}/s, {left:,.0f} s left\n"
        )

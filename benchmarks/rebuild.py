"""Row 5: a rebuild, against reading the same rows out of PostgreSQL and throwing them away."""

import multiprocessing
import os
import time
from datetime import UTC, datetime
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

import psycopg

from benchmarks import stage
from benchmarks.apart import apart, peaks
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.stage import MeasureError
from ledger.projection import rebuild as product

READERS = 2


class Rebuilt(NamedTuple):
    """A rebuild in a process of its own: events, seconds; bytes of memory by process."""

    events: int
    seconds: float
    peaks: dict[int, int]

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def measure(run: Run) -> list[Row]:
    """Rebuild, and copy out in both formats, in turn."""
    events = run.size(1_000_000, 160_000)
    url = run.logs.url(events)
    rates: dict[str, list[float]] = {"Ledger": [], "binary": [], "text": []}
    for _, name in run.turns(list(rates)):
        if name == "Ledger":
            rates[name].append(rebuild(url, processes=2).rate)
        else:
            rates[name].append(_copy_out(url, name))
    return [
        Row(
            number="5",
            what="rebuild, events/s, two processes",
            against="COPY of the same rows out by two processes that throw them away, binary",
            target=Target(at_least=0.10),
            values=ratios(rates["Ledger"], rates["binary"]),
            figures=[
                Figure("Ledger", rates["Ledger"], "events/s"),
                Figure("COPY, binary", rates["binary"], "events/s"),
                Figure("COPY, text", rates["text"], "events/s"),
                Figure("ratio to COPY as text", ratios(rates["Ledger"], rates["text"]), ""),
            ],
            remarks=[f"A log of {events:,} events; each reader takes half of the positions."],
        )
    ]


def rebuild(url: str, *, processes: int) -> Rebuilt:
    """Rebuild the state in a process of its own."""
    return apart(_rebuild, url, processes)


def rebuilt(run: Run, events: int) -> str:
    """Return the address of a shared log of that size whose state is up to date."""
    url = run.logs.url(events)
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT position = (SELECT max(position) FROM ledger.event_log) FROM state.checkpoint"
        ).fetchone()
    if not (row and row[0]):
        rebuild(url, processes=2)
        stage.settle(url)
    return url


def _rebuild(url: str, processes: int) -> Rebuilt:
    with peaks(os.getpid()) as found:
        began = time.monotonic()
        made = product.rebuild(
            url, processes=processes, started_at=datetime.now(UTC), on_progress=lambda _a, _b: None
        )
        seconds = time.monotonic() - began
    return Rebuilt(made.counts.events, seconds, found)


def _copy_out(url: str, form: str) -> float:
    """Return the events per second that the readers got, from when all of them were ready."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(position) FROM ledger.event_log").fetchone()
    events = row[0] if row else 0
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(READERS)
    times: SimpleQueue[tuple[float, float, int]] = context.SimpleQueue()
    readers = []
    for n in range(READERS):
        query = (
            f"COPY (SELECT * FROM ledger.event_log WHERE position > {events * n // READERS}"
            f" AND position <= {events * (n + 1) // READERS}) TO STDOUT (FORMAT {form})"
        )
        readers.append(context.Process(target=_read, args=(url, query, ready, times)))
        readers[-1].start()
    for reader in readers:
        reader.join()
    if any(reader.exitcode for reader in readers):
        raise MeasureError("a reader failed")
    began, ended, parts = zip(*(times.get() for _ in readers), strict=True)
    if not events <= sum(parts) <= events + 2 * READERS:  # a header and a trailer may be apart
        raise MeasureError(f"{sum(parts):,} rows were read, not {events:,}")
    return float(events / (max(ended) - min(began)))


def _read(
    url: str, query: str, ready: Barrier, times: "SimpleQueue[tuple[float, float, int]]"
) -> None:
    """Read when all are ready; the clock is the same in all processes."""
    with psycopg.connect(url) as connection:
        ready.wait(60)
        began = time.monotonic()
        with connection.cursor().copy(query.encode()) as copy:
            parts = sum(1 for _ in copy)
        times.put((began, time.monotonic(), parts))

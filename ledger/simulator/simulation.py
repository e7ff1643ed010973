"""Runs a simulation: sends the webhooks to a receiver, or writes them to a file."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from ledger.errors import SimulationError
from ledger.simulator.history import Event, bills
from ledger.simulator.options import SimulationOptions
from ledger.simulator.output import write_payloads
from ledger.simulator.plan import PlannedEvent, plan
from ledger.simulator.sender import UNAUTHORIZED, Sender
from ledger.simulator.summary import SimulationSummary, Tally
from ledger.simulator.truth import Delivery, Record, TruthFile

MAX_UNDER_WAY = 20_000
"""Maximum number of events under way; new ones wait, so that memory stays bounded."""

PROGRESS_INTERVAL = 0.2
"""Seconds between two calls of `on_progress`."""

NOT_AUTHORIZED = (
    "the receiver refused the token (401), so the simulation ended early: "
    "give --token one of the receiver's webhook tokens"
)
STOPPED = "stopped before the end"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The progress of a simulation."""

    bills: int  # in all
    bills_begun: int
    under_way: int  # events being delivered or waiting for a retry
    summary: SimulationSummary  # so far

    def in_words(self) -> str:
        """Return a short text to show next to a bar; waiting is for an answer or a retry."""
        lost = self.summary.dropped + self.summary.lost
        return f"{self.summary.delivered:,} delivered, {lost:,} lost, {self.under_way:,} waiting"


async def simulate(
    options: SimulationOptions,
    *,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SimulationSummary:
    """Simulate one or several lab days, and return a summary.

    Set `stop` to end it early. A refused token also ends it early and sets `stop`. The summary's
    `failure` then gives the reason. Raises SimulationError if a file cannot be written.
    """
    if options.start is None:
        now = int(time.time())
        options = replace(options, start=now - options.history().seconds)
    with TruthFile(options.truth) as truth:
        simulation = _Simulation(options, truth, stop or asyncio.Event(), on_progress)
        await simulation.run()
        summary = simulation.summary()
        truth.write_summary(summary.as_told())
    return summary


class _Stopped(Exception):  # noqa: N818 a signal, not an error
    """Unwinds the tasks of a simulation that ends early."""


class _Simulation:
    def __init__(
        self,
        options: SimulationOptions,
        truth: TruthFile,
        stop: asyncio.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._options = options
        self._truth = truth
        self._stop = stop
        self._on_progress = on_progress
        self._tally = Tally()
        self._bills_begun = 0
        self._under_way = 0
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._begun = time.perf_counter()
        self._failure: str | None = None

    async def run(self) -> None:
        events = plan(self._counted(), self._options.faults(), self._options.seed)
        errors: BaseExceptionGroup[SimulationError] | None = None
        outages = self._options.all_outages()
        for outage in outages:
            self._truth.write_outage(outage)
        try:
            async with self._watched():
                if self._options.output is not None:
                    await write_payloads(
                        events,
                        self._options.output,
                        interval=round(self._options.retry_interval),
                        outages=outages,
                        received=self._options.received,
                        on_delivery=self._delivered,
                        on_end=self._ended,
                    )
                else:
                    await self._send(events)
        except* _Stopped:
            self._failure = self._failure or STOPPED
        except* SimulationError as group:
            errors = group
        if errors is not None:
            raise _first(errors)
        if self._on_progress is not None:
            self._on_progress(self._progress())

    def summary(self) -> SimulationSummary:
        summary = self._tally.summary(
            seed=self._options.seed,
            start=self._options.start or 0,
            seconds=round(time.perf_counter() - self._begun, 3),
            failure=self._failure,
        )
        if not (summary.failure or summary.delivered) and summary.lost and self._options.url:
            return replace(summary, failure=_reached_nobody(summary))
        return summary

    def _counted(self) -> Iterator[list[Event]]:
        for bill in bills(self._options.history()):
            self._bills_begun += 1
            yield bill

    async def _send(self, events: Iterable[PlannedEvent]) -> None:
        options = self._options
        async with (
            Sender(
                route=options.routed(),
                concurrency=options.concurrency,
                interval=options.retry_interval / options.speed,
                timeout=options.timeout / options.speed,
                on_delivery=self._delivered,
            ) as sender,
            asyncio.TaskGroup() as deliveries,
        ):
            pace = _Pace(options.rate)
            for planned in events:
                if planned.fate.dropped:
                    self._ended(Record(planned=planned, state="dropped"))
                    await asyncio.sleep(0)
                    continue
                await pace.next()
                await self._room.acquire()
                await sender.until_free()
                deliveries.create_task(self._deliver(sender, Record(planned=planned)))
                # The new task takes its slot before the next event asks whether one is free.
                await asyncio.sleep(0)

    async def _deliver(self, sender: Sender, record: Record) -> None:
        self._under_way += 1
        try:
            await sender.deliver(record)
        finally:
            self._under_way -= 1
            self._room.release()
            self._ended(record)

    def _delivered(self, delivery: Delivery) -> None:
        self._tally.count_delivery(delivery)
        # A sandbox goes on, as Flabs does: its subscribers may mend their token.
        if delivery.status == UNAUTHORIZED and self._options.url is not None:
            self._failure = NOT_AUTHORIZED
            self._stop.set()

    def _ended(self, record: Record) -> None:
        self._tally.count_event(record)
        self._truth.write_event(record)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Run the block until it ends or `stop` is set, then raise a group with _Stopped."""
        async with asyncio.TaskGroup() as group:
            watchers = [group.create_task(self._watch_stop())]
            if self._on_progress is not None:
                watchers.append(group.create_task(self._report(self._on_progress)))
            yield
            for watcher in watchers:
                watcher.cancel()

    async def _watch_stop(self) -> None:
        await self._stop.wait()
        raise _Stopped

    async def _report(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(self._progress())
            await asyncio.sleep(PROGRESS_INTERVAL)

    def _progress(self) -> Progress:
        return Progress(
            bills=self._options.bills,
            bills_begun=self._bills_begun,
            under_way=self._under_way,
            summary=self.summary(),
        )


class _Pace:
    """Schedules the first attempts at a fixed rate.

    The schedule does not shift: a receiver that was slow for a while then gets the backlog at once,
    as it would from labs that go on working.
    """

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._due = time.perf_counter()

    async def next(self) -> None:
        wait = self._due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        self._due += self._gap


def _reached_nobody(summary: SimulationSummary) -> str:
    reasons = {f"answered {status}": count for status, count in summary.statuses.items()}
    reasons |= summary.errors
    often = max(reasons, key=lambda reason: reasons[reason])
    return f"nothing was delivered ({often}): is the receiver running, and is --url right?"


def _first(group: BaseExceptionGroup[SimulationError]) -> SimulationError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first

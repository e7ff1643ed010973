"""Writes the payloads to a file in the order of arrival, instead of sending them.

The file is JSON Lines, as `ledger import` reads them: payloads only, or with times of reception.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from ledger.errors import SimulationError
from ledger.eventlog.export_lines import ExportLine
from ledger.simulator.outages import Outages
from ledger.simulator.plan import PlannedEvent, Try, arrivals, tries
from ledger.simulator.truth import Delivery, Record, timestamp

STANDARD_OUTPUT = Path("-")
AWAY = "receiver away"
"""The error of an attempt during an outage."""

TURN = 500
"""Number of events after which other tasks of the event loop get a turn."""


async def write_payloads(
    events: Iterable[PlannedEvent],
    path: Path,
    *,
    interval: int,
    outages: Outages,
    received: bool,
    on_delivery: Callable[[Delivery], None],
    on_end: Callable[[Record], None],
) -> None:
    """Write each delivery as one line; `interval` is the time between two attempts in seconds.

    An attempt during an outage writes nothing. With `received`, lines have the form of `ledger
    export`, with the time of the attempt as the time of reception. `on_delivery` is called for each
    attempt, `on_end` for each event. Raises SimulationError.
    """
    positions = itertools.count(1)
    with _opened(path) as file:
        for count, planned in enumerate(arrivals(events, interval, outages)):
            if count % TURN == 0:
                await asyncio.sleep(0)
            record = Record(planned=planned, state="dropped")
            for each in tries(planned, interval, outages):
                record.state = "lost" if each.fails else "delivered"
                for delivery in _deliveries(planned, each):
                    if not each.fails:
                        body = planned.event.body
                        line = _received(body, each.at, next(positions)) if received else body
                        _write(file, path, line + b"\n")
                    record.deliveries.append(delivery)
                    on_delivery(delivery)
            on_end(record)


def _deliveries(planned: PlannedEvent, each: Try) -> Iterator[Delivery]:
    sent_at = timestamp(each.at)
    error = AWAY if each.fails else None
    for repeat in (False, True)[: 1 + (planned.fate.duplicate and not each.fails)]:
        yield Delivery(
            attempt=each.attempt, repeat=repeat, sent_at=sent_at, seconds=0.0, error=error
        )


def _received(body: bytes, at: int, position: int) -> bytes:
    moment = datetime.fromtimestamp(at, UTC)
    return msgspec.json.encode(ExportLine(position, moment, "webhook", body=msgspec.Raw(body)))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise _failure(path, error) from None
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise _failure(path, error) from None


def _write(file: BinaryIO, path: Path, line: bytes) -> None:
    try:
        file.write(line)
    except OSError as error:
        raise _failure(path, error) from None


def _failure(path: Path, error: OSError) -> SimulationError:
    return SimulationError(f"cannot write {path}: {error.strerror}")

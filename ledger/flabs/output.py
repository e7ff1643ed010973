"""Writes the payloads to a file instead of sending them, in the order in which they would arrive.

JSON Lines, as `ledger import` reads them.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ledger.errors import SimulationError
from ledger.flabs.plan import PlannedEvent, arrivals
from ledger.flabs.truth import Delivery, Record, timestamp

STANDARD_OUTPUT = Path("-")
TURN = 500
"""Events written before others on the event loop have their turn."""


async def write_payloads(
    events: Iterable[PlannedEvent],
    path: Path,
    *,
    interval: int,
    on_delivery: Callable[[Delivery], None],
    on_end: Callable[[Record], None],
) -> None:
    """Write each delivery as one line; `interval` is the sender's between two attempts, seconds.

    `on_delivery` is called for each line, `on_end` for each event. Raises SimulationError.
    """
    with _opened(path) as file:
        for count, planned in enumerate(arrivals(events, interval)):
            if count % TURN == 0:
                await asyncio.sleep(0)
            record = Record(planned=planned, state="dropped")
            if not planned.fate.dropped:
                record.state = "delivered"
                for delivery in _deliveries(planned, interval):
                    _write(file, path, planned.event.body + b"\n")
                    record.deliveries.append(delivery)
                    on_delivery(delivery)
            on_end(record)


def _deliveries(planned: PlannedEvent, interval: int) -> Iterator[Delivery]:
    fate = planned.fate
    sent_at = timestamp(planned.send_at + (fate.attempt - 1) * interval)
    for repeat in (False, True)[: 1 + fate.duplicate]:
        yield Delivery(attempt=fate.attempt, repeat=repeat, sent_at=sent_at, seconds=0.0)


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

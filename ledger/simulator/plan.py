"""The fate of each event on its way: dropped, late, repeated, out of order. Pure.

Random numbers are drawn separately from those of the history, and equally many for each event. So
the same seed gives the same events whatever the faults, and an event that is dropped at `drop=0.01`
is also dropped at `drop=0.05`.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from ledger.simulator.history import Event, merge
from ledger.simulator.outages import NEVER, Outages

ATTEMPTS = 4
"""A first attempt and at most three retries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """The probability of each fault for an event, 0 to 1; faults are independent."""

    drop: float = 0.0
    late: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    lose_bills: float = 0.0  # for a whole bill: all its events are dropped

    def any(self) -> bool:
        """Return whether single events can have a fault."""
        return max(self.drop, self.late, self.duplicate, self.reorder) > 0


class Fate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The faults planned for one event."""

    dropped: bool = False  # all four attempts are lost on the way
    attempt: int = 1  # the first attempt that is not lost on the way, 1 to 4
    duplicate: bool = False  # delivered again although acknowledged
    reordered: bool = False  # held back until later events of its bill have been sent
    bill_lost: bool | UnsetType = UNSET  # true: dropped with all events of its bill


PLAIN = Fate()
DROPPED = Fate(dropped=True)
BILL_LOST = Fate(dropped=True, bill_lost=True)


class PlannedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event and its fate; `number` counts the events in order of sending, from 1."""

    number: int
    send_at: int  # Unix time of the simulated day at which the first attempt is due
    event: Event
    fate: Fate


class Try(msgspec.Struct, frozen=True, gc=False):
    """An attempt at a Unix time that is not lost on the way; it fails during an outage."""

    attempt: int
    at: int
    fails: bool


def tries(planned: PlannedEvent, interval: int, outages: Outages) -> Iterator[Try]:
    """Yield the attempts of an event up to the first that does not fail."""
    if planned.fate.dropped:
        return
    for attempt in range(planned.fate.attempt, ATTEMPTS + 1):
        at = planned.send_at + (attempt - 1) * interval
        fails = outages.cover(at)
        yield Try(attempt, at, fails)
        if not fails:
            return


def plan(bills: Iterable[Sequence[Event]], faults: Faults, seed: int) -> Iterator[PlannedEvent]:
    """Yield the events of all bills lazily, with their fates, in order of sending."""
    timed = merge(
        (events[0].event_time, _sent(events, faults, f"{seed}/{index}"))
        for index, events in enumerate(bills)
    )
    for number, (send_at, (event, fate)) in enumerate(timed, start=1):
        yield PlannedEvent(number=number, send_at=send_at, event=event, fate=fate)


def arrivals(
    planned: Iterable[PlannedEvent], interval: int, outages: Outages = NEVER
) -> Iterator[PlannedEvent]:
    """Yield events in order of arrival; `interval` is in seconds.

    An event that arrives with its third attempt comes two intervals after it was due. An event lost
    in an outage is placed at its last attempt, a dropped one at its first.
    """
    held: list[tuple[int, int, PlannedEvent]] = []
    order = itertools.count()
    for item in planned:
        while held and held[0][0] <= item.send_at:
            yield heapq.heappop(held)[2]
        *_, due = (item.send_at, *(each.at for each in tries(item, interval, outages)))
        if item.fate.attempt == 1 and due == item.send_at:
            yield item
        else:
            heapq.heappush(held, (due, next(order), item))
    while held:
        yield heapq.heappop(held)[2]


def _sent(
    events: Sequence[Event], faults: Faults, seed: str
) -> list[tuple[int, tuple[Event, Fate]]]:
    # Drawn separately, so that lost bills do not change the fate of other bills.
    if faults.lose_bills and random.Random(f"{seed}/bill").random() < faults.lose_bills:
        return [(event.event_time, (event, BILL_LOST)) for event in events]
    return _send_times(events, faults, f"{seed}/fate")


def _send_times(
    events: Sequence[Event], faults: Faults, seed: str
) -> list[tuple[int, tuple[Event, Fate]]]:
    """Return the events of one bill with fate and time of sending, in order of that time."""
    if not faults.any():
        return [(event.event_time, (event, PLAIN)) for event in events]
    chance = random.Random(seed).random
    timed: list[tuple[int, bool, tuple[Event, Fate]]] = []
    for index, event in enumerate(events):
        fate = _fate(chance, faults)
        hold = chance()
        send_at = event.event_time
        if fate.reordered:
            send_at = _held_back(events, index, hold)
        timed.append((send_at, fate.reordered, (event, fate)))
    # An event that is held back is sent after the event whose time it took.
    timed.sort(key=lambda item: item[:2])
    return [(send_at, item) for send_at, _, item in timed]


def _fate(chance: Callable[[], float], faults: Faults) -> Fate:
    drop, late, attempt, duplicate, reorder = (chance() for _ in range(5))
    if drop < faults.drop:
        return DROPPED
    return Fate(
        attempt=2 + int(attempt * (ATTEMPTS - 1)) if late < faults.late else 1,
        duplicate=duplicate < faults.duplicate,
        reordered=reorder < faults.reorder,
    )


def _held_back(events: Sequence[Event], index: int, hold: float) -> int:
    """Return when a reordered event is sent: with a later event of its bill, or within the hour."""
    later = len(events) - index - 1
    if later == 0:
        return events[index].event_time + 60 + int(hold * 3_540)
    return events[index + 1 + int(hold * later)].event_time

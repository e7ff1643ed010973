"""What becomes of each event on its way: dropped, late, repeated, out of order. Pure.

The chances are drawn from the seed apart from those of the history, and in the same number for
each event: the same seed makes the same events whatever the faults, and an event dropped at
`drop=0.01` is also dropped at `drop=0.05`.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from ledger.flabs.history import Event, merge

ATTEMPTS = 4
"""A first attempt and at most three retries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How probable each fault is for an event, 0 to 1, each independent of the others."""

    drop: float = 0.0
    late: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def any(self) -> bool:
        """Tell whether there is any fault at all."""
        return max(self.drop, self.late, self.duplicate, self.reorder) > 0


class Fate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was decided for one event."""

    dropped: bool = False  # all four attempts are lost on the way
    attempt: int = 1  # the first attempt that is not lost on the way, 1 to 4
    duplicate: bool = False  # delivered once more although acknowledged
    reordered: bool = False  # held back until later events of its bill were sent


PLAIN = Fate()
DROPPED = Fate(dropped=True)


class PlannedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event and its fate; `number` counts the events in order of sending, from 1."""

    number: int
    send_at: int  # Unix time of the simulated day at which the first attempt is due
    event: Event
    fate: Fate


def plan(bills: Iterable[Sequence[Event]], faults: Faults, seed: int) -> Iterator[PlannedEvent]:
    """Yield the events of all bills with their fates, in order of sending; lazily."""
    timed = merge(
        (events[0].event_time, _send_times(events, faults, f"{seed}/{index}/fate"))
        for index, events in enumerate(bills)
    )
    for number, (send_at, (event, fate)) in enumerate(timed, start=1):
        yield PlannedEvent(number=number, send_at=send_at, event=event, fate=fate)


def arrivals(planned: Iterable[PlannedEvent], interval: int) -> Iterator[PlannedEvent]:
    """Yield events in the order in which they would arrive; `interval` in seconds.

    An event that arrives with its third attempt comes two intervals later than it was due; a
    dropped one keeps its place.
    """
    held: list[tuple[int, int, PlannedEvent]] = []
    order = itertools.count()
    for item in planned:
        while held and held[0][0] <= item.send_at:
            yield heapq.heappop(held)[2]
        if item.fate.attempt == 1:
            yield item
        else:
            due = item.send_at + (item.fate.attempt - 1) * interval
            heapq.heappush(held, (due, next(order), item))
    while held:
        yield heapq.heappop(held)[2]


def _send_times(
    events: Sequence[Event], faults: Faults, seed: str
) -> list[tuple[int, tuple[Event, Fate]]]:
    """Give each event of one bill its fate and the time at which it is sent, in that order."""
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
    # What is held back goes after the event whose time it took.
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
    """Tell when a reordered event is sent: with a later event of its bill, or within the hour."""
    later = len(events) - index - 1
    if later == 0:
        return events[index].event_time + 60 + int(hold * 3_540)
    return events[index + 1 + int(hold * later)].event_time

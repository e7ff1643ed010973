"""Outages of the receiver, during which every attempt fails; pure functions of the seed."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ledger.simulator.history import History

LONG, SHORT, PIECE, PAUSE = (600, 10_800), (20, 350), (30, 300), (10, 150)
"""Minimum and maximum seconds: of a long outage, of one that the four attempts always outlast, of a
piece of a flapping outage, and of the time between two pieces."""

MOST_PIECES = 15


class Outage(msgspec.Struct, frozen=True, order=True, gc=False):
    """The seconds from `begin`, included, to `end`, excluded; Unix times."""

    begin: int
    end: int


class Outages:
    """Outages in order; those that overlap or touch are merged."""

    def __init__(self, outages: Iterable[Outage] = ()) -> None:
        self._merged: list[Outage] = []
        for each in sorted(outages):
            if self._merged and each.begin <= self._merged[-1].end:
                last = self._merged.pop()
                self._merged.append(Outage(last.begin, max(last.end, each.end)))
            else:
                self._merged.append(each)
        self._begins = [each.begin for each in self._merged]

    def __iter__(self) -> Iterator[Outage]:
        return iter(self._merged)

    def cover(self, moment: int) -> bool:
        """Return whether an attempt at this Unix time fails."""
        before = bisect_right(self._begins, moment)
        return before > 0 and moment < self._merged[before - 1].end


NEVER = Outages()


def draw_outages(history: History, count: int) -> Iterator[Outage]:
    """Yield the pieces of `count` outages: long, short and flapping ones in turn."""
    kinds = (_long, _short, _flapping)
    for index in range(count):
        # One generator per outage, so that one more outage leaves the earlier ones as they are.
        chance = random.Random(f"{history.seed}/{index}/outage").random
        begin = history.start + int(chance() * history.seconds)
        yield from kinds[index % len(kinds)](begin, chance)


def _long(begin: int, chance: Callable[[], float]) -> Iterator[Outage]:
    yield Outage(begin, begin + _between(LONG, chance))


def _short(begin: int, chance: Callable[[], float]) -> Iterator[Outage]:
    yield Outage(begin, begin + _between(SHORT, chance))


def _flapping(begin: int, chance: Callable[[], float]) -> Iterator[Outage]:
    for _ in range(_between((4, MOST_PIECES), chance)):
        end = begin + _between(PIECE, chance)
        yield Outage(begin, end)
        begin = end + _between(PAUSE, chance)


def _between(bounds: tuple[int, int], chance: Callable[[], float]) -> int:
    least, most = bounds
    return least + int(chance() * (most - least + 1))

"""Loss windows: the times whose events met an outage at every attempt, so that none is known.

Source: design, "Loss windows". A list of intervals that is taken or given here is sorted and
disjoint and holds no empty one, as `union` makes it, where nothing else is said.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct


class Interval(Struct, frozen=True, order=True, gc=False):
    """The times from `begin` on and before `end`, both UTC."""

    begin: datetime
    end: datetime


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the times in any of the intervals, given in any order; they may overlap or be empty.

    Intervals that touch become one.
    """
    merged: list[Interval] = []
    for each in sorted(intervals):
        if each.begin >= each.end:
            continue
        if merged and each.begin <= merged[-1].end:
            merged[-1] = Interval(merged[-1].begin, max(merged[-1].end, each.end))
        else:
            merged.append(each)
    return merged


def intersection(a: list[Interval], b: list[Interval]) -> list[Interval]:
    """Return the times in both."""
    common = []
    i = j = 0
    while i < len(a) and j < len(b):
        begin = max(a[i].begin, b[j].begin)
        end = min(a[i].end, b[j].end)
        if begin < end:
            common.append(Interval(begin, end))
        if a[i].end < b[j].end:
            i += 1
        else:
            j += 1
    return common


def difference(a: list[Interval], b: list[Interval]) -> list[Interval]:
    """Return the times in `a` that are not in `b`."""
    rest = []
    j = 0
    for each in a:
        begin = each.begin
        while j < len(b) and b[j].begin < each.end:
            if begin < b[j].begin:
                rest.append(Interval(begin, b[j].begin))
            begin = max(begin, b[j].end)
            if b[j].end > each.end:
                break  # it may reach into the next one of `a`, too
            j += 1
        if begin < each.end:
            rest.append(Interval(begin, each.end))
    return rest


def outages(alive: Iterable[Interval], *, since: datetime, until: datetime) -> list[Interval]:
    """Return the times from `since` on and before `until` in which no instance was alive.

    `alive` holds the intervals of all instances, in any order; they may overlap.
    """
    return difference([Interval(since, until)], union(alive))


def loss_windows(outages: list[Interval], *, interval: timedelta, count: int) -> list[Interval]:
    """Return the times of events whose first attempt and all `count` retries met an outage.

    The retries are `interval` apart. An attempt after the last outage counts as having come
    through: an event is lost only when its last attempt is known to have failed.
    """
    # Those that fail `attempts` times in a row from some attempt on, and do so again `step`
    # attempts later, fail `attempts + step` times as long as the two rows leave no gap. So the
    # rows double, and 101 attempts take seven intersections instead of a hundred.
    windows = outages
    attempts = 1
    while attempts <= count and windows:
        step = min(attempts, count + 1 - attempts)
        windows = intersection(windows, _earlier(windows, step * interval))
        attempts += step
    return windows


def _earlier(intervals: list[Interval], by: timedelta) -> list[Interval]:
    return [Interval(each.begin - by, each.end - by) for each in intervals]

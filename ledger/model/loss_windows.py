"""Finds loss windows: times whose events met an outage at every attempt and were all lost.

Source: docs/rules.md, "Loss windows". Unless stated otherwise, a list of intervals is sorted, and
its intervals are disjoint and not empty, as `union` returns them.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct


class Interval(Struct, frozen=True, order=True, gc=False):
    """The time from `begin` to before `end`, both UTC."""

    begin: datetime
    end: datetime


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge intervals, which may be in any order, overlap or be empty.

    Adjacent intervals become one.
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
    """Return the times that are in both lists."""
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
    """Return the times that are in `a` and not in `b`."""
    rest = []
    j = 0
    for each in a:
        begin = each.begin
        while j < len(b) and b[j].begin < each.end:
            if begin < b[j].begin:
                rest.append(Interval(begin, b[j].begin))
            begin = max(begin, b[j].end)
            if b[j].end > each.end:
                break  # it may overlap the next interval of `a`, too
            j += 1
        if begin < each.end:
            rest.append(Interval(begin, each.end))
    return rest


def outages(
    alive: Iterable[Interval], refused: Iterable[Interval], *, since: datetime, until: datetime
) -> list[Interval]:
    """Return the times from `since` to before `until` in which a delivery may have been refused.

    Those are the times in which no instance was alive, and those in which one refused deliveries.
    Both hold the intervals of all instances, in any order; they may overlap.
    """
    whole = [Interval(since, until)]
    return union([*difference(whole, union(alive)), *intersection(whole, union(refused))])


def loss_windows(outages: list[Interval], *, interval: timedelta, count: int) -> list[Interval]:
    """Return the times of events whose first attempt and all `count` retries met an outage.

    The retries are `interval` apart. An attempt after the last outage counts as successful: an
    event is lost only when its last attempt is known to have failed.
    """
    # Times whose first `attempts` attempts all fail, and which still fail that often when shifted
    # by `step` <= `attempts` intervals, fail `attempts + step` times in a row. So the number of
    # attempts doubles each time, and 101 attempts take seven intersections instead of a hundred.
    windows = outages
    attempts = 1
    while attempts <= count and windows:
        step = min(attempts, count + 1 - attempts)
        windows = intersection(windows, _earlier(windows, step * interval))
        attempts += step
    return windows


def _earlier(intervals: list[Interval], by: timedelta) -> list[Interval]:
    return [Interval(each.begin - by, each.end - by) for each in intervals]

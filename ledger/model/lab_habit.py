"""Learns when a lab is heard of: how surprising an empty hour is, by hour of the week (UTC).

Source: docs/rules.md, "Silence". Hours are counted since 1970. The surprise of an hour is the
natural logarithm of the odds against its being empty, estimated with caution; the surprise of a
silence is the sum over its hours.
"""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import log

from msgspec import Struct

WEEK = 168
"""Hours of a week, and the length of lists by hour of the week; hour 0 is Monday's first."""

HALF_LIFE = 5 * WEEK
"""Hours after which an observation counts half, so that a habit may grow, shrink and move."""

PRIOR = 2.0
"""How many observations of an hour of the week those of equally busy hours count for."""

IDLE = 0.25
"""The surprise below which an hour of the week is no working hour: it is mostly empty."""

REST = 3
"""The idle hours in a row that part two sessions; a lunch break is shorter."""

BUSY = 16
"""The usual events of an hour that is as busy as any: it is not empty by chance."""

EDGE = 1.5
"""The most surprise of an hour next to one that is often empty, as at the ends of a session. Labs
open late and close early, and clocks are changed twice a year."""


class Habit(Struct, frozen=True):
    """By hour of the week: the surprise of an empty hour, the usual events, and the session.

    A session is a stretch of hours in which the lab works; between two of them stands -1. `whole`
    is the surprise of each session.
    """

    surprise: list[float]
    usual: list[int]
    session: list[int]
    whole: list[float]

    @property
    def is_busy(self) -> bool:
        """Whether a half of the hours in which it works are too busy to be empty by chance."""
        usual = sorted(events for events in self.usual if events)
        return bool(usual) and usual[len(usual) // 2] >= BUSY


def hour_of_week(hour: int) -> int:
    """Return the hour of the week of an hour counted since 1970, which began on a Thursday."""
    return (hour + 72) % WEEK


def learn(counts: Mapping[int, int], begin: int, end: int, unobserved: AbstractSet[int]) -> Habit:
    """Learn the habit of a lab from its events by hour, from `begin` to before `end`.

    An empty hour that is unobserved says nothing.
    """
    weights = [0.5 ** (week * WEEK / HALF_LIFE) for week in range((end - begin) // WEEK + 1)]
    weeks = [0] * WEEK
    total = [0.0] * WEEK
    for age in range(min(WEEK, end - begin)):
        slot = hour_of_week(end - 1 - age)
        weeks[slot] = (end - 1 - age - begin) // WEEK + 1
        total[slot] = sum(weights[: weeks[slot]])
    empty = list(total)
    events_of: list[list[int]] = [[] for _ in range(WEEK)]
    for hour, events in counts.items():
        if begin <= hour < end:
            slot = hour_of_week(hour)
            events_of[slot].append(events)
            empty[slot] -= weights[(end - 1 - hour) // WEEK]
    for hour in unobserved:
        if begin <= hour < end and hour not in counts:
            slot = hour_of_week(hour)
            weeks[slot] -= 1
            total[slot] -= weights[(end - 1 - hour) // WEEK]
            empty[slot] -= weights[(end - 1 - hour) // WEEK]
    usual = [_low_median(each, count) for each, count in zip(events_of, weeks, strict=True)]
    raw = [-log(chance) for chance in _chances(usual, total, empty)]
    surprise = [
        max(min(here, EDGE), min(raw[slot - 1], here, raw[(slot + 1) % WEEK]))
        for slot, here in enumerate(raw)
    ]
    session = _sessions([each >= IDLE for each in surprise])
    whole = [0.0] * (max(session) + 1)
    for slot, number in enumerate(session):
        if number >= 0:
            whole[number] += surprise[slot]
    return Habit(surprise, usual, session, whole)


def _low_median(values: list[int], count: int) -> int:
    """Return the lower median of `count` values; those that are not given are zero."""
    place = (count - 1) // 2 - (count - len(values))
    return sorted(values)[place] if 0 <= place < len(values) else 0


def _chances(usual: list[int], total: list[float], empty: list[float]) -> list[float]:
    """Return the chance that an hour is empty, at most 1, by hour of the week."""
    # Equally busy hours share what is known of them: a quarter has thirteen observations of an
    # hour of the week, too few to tell rare from never.
    shared_total: dict[int, float] = defaultdict(float)
    shared_empty: dict[int, float] = defaultdict(float)
    classes = [min(events, BUSY).bit_length() for events in usual]
    for slot, busy in enumerate(classes):
        # The first and last hours of a session are empty for reasons that the others do not share.
        if classes[slot - 1] and classes[(slot + 1) % WEEK]:
            shared_total[busy] += total[slot]
            shared_empty[busy] += empty[slot]
    chances = []
    for slot, busy in enumerate(classes):
        prior = (shared_empty[busy] + 0.5) / (shared_total[busy] + 1) if busy else 1.0
        chances.append(
            min(1.0, (PRIOR * prior + max(0.0, empty[slot])) / (PRIOR + max(0.0, total[slot])))
        )
    return chances


def _sessions(working: list[bool]) -> list[int]:
    """Number the stretches of working hours in the circle of a week."""
    starts = [
        slot
        for slot in range(WEEK)
        if working[slot] and not any(working[slot - back] for back in range(1, REST + 1))
    ]
    if not starts:  # always at work, or never
        return [0 if any(working) else -1] * WEEK
    session = [-1] * WEEK
    for number, start in enumerate(starts):
        last = slot = start
        while slot - last <= REST:
            if working[slot % WEEK]:
                for each in range(last, slot + 1):
                    session[each % WEEK] = number
                last = slot
            slot += 1
    return session

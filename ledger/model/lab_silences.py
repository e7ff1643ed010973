"""Measures the silences of a lab by its habit: the present one, and all those before it.

Source: docs/rules.md, "Silence". Hours are counted since 1970; a moment is a fraction of one.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import pairwise
from math import exp

from msgspec import Struct, structs

from ledger.model.lab_habit import WEEK, Habit, hour_of_week, learn

HISTORY = 13 * WEEK
"""Hours before a silence that a lab's habit is taken from: a quarter."""

LEARNED = 2 * WEEK
"""Hours that a lab must have been known for: each hour of the week twice."""

CERTAIN = 10.0
"""The surprise at which a silence in a session is told: more than 20,000 to one."""

NOTICED = 3.0
"""The surprise at which a lab is quiet: twenty to one."""

OPENED = 0.15
"""The share of its usual events that comes at the least while a lab works as usual."""

LATELY = 6
"""The hours that are looked at for that."""

MISSED = 0.5
"""The share of a session's surprise that a lab has to miss, to have missed the session."""

NEARLY_ALL = 0.9
"""The share of a session's surprise that counts as the whole session."""

Parts = list[tuple[int, float]]
"""The surprise of a silence, session by session in order; between two sessions stands -1."""


class Silence(Struct, frozen=True):
    """A silence, measured by a habit.

    `stopped` is the surprise in the session in which the lab was heard of last. `missed` counts the
    sessions that it missed, 0 to 1 for each. `surprise` is that of all its hours.
    """

    stopped: float
    missed: float
    surprise: float


class Past(Struct, frozen=True):
    """What is known of a lab when it is heard of last, at the moment `since`.

    Bit n of `heard` says whether it was heard of n hours before; `weeks` is how long it has been
    known, a quarter at the most. `habit` is None for a lab that is too new. `opened` says whether
    it worked as usual until then. `stopped` and `missed` are the two greatest of its earlier
    silences, the greatest first; `longest` is the longest of them in hours.
    """

    since: float
    heard: int = 0
    weeks: float = 0.0
    longest: float = 0.0
    habit: Habit | None = None
    opened: bool = False
    irregular: AbstractSet[int] = frozenset()
    stopped: tuple[float, float] = (0.0, 0.0)
    missed: tuple[float, float] = (0.0, 0.0)

    def measure(self, until: float, unobserved: AbstractSet[int]) -> Silence | None:
        """Measure the silence that follows; None without a habit."""
        if self.habit is None:
            return None
        parts = _parts(self.habit, self.since, until, unobserved)
        return _measure(self.habit, int(self.since), parts, self.irregular, opened=self.opened)


def look_back(counts: Mapping[int, int], since: float, unobserved: AbstractSet[int]) -> Past:
    """Return what is known of a lab that was heard of last at the moment `since`.

    `counts` are its events by hour, none of them 0; those after that hour are left out.
    """
    last = int(since)
    end = last + 1
    heard = sorted(hour for hour in counts if end - HISTORY <= hour < end)
    first = heard[0] if heard else end
    gaps = [(a, b) for a, b in pairwise(heard) if b - a > 1]
    new = Past(
        since=since,
        heard=sum(1 << (last - hour) for hour in heard),
        weeks=(end - first) / WEEK,
        longest=max((observed(a + 1, b, unobserved) for a, b in gaps), default=0.0),
    )
    if end - first < LEARNED:
        return new
    habit = learn(counts, first, end, unobserved)
    silences, irregular = _measure_all(counts, habit, gaps, unobserved)
    closures = {
        hour
        for (a, b), silence in zip(gaps, silences, strict=True)
        if silence.missed >= 1 or silence.stopped >= 2 * CERTAIN
        for hour in range(a + 1, b)
    }
    if closures:  # a holiday or a loss is no habit
        habit = learn(counts, first, end, closures | unobserved)
        silences, irregular = _measure_all(counts, habit, gaps, unobserved)
    return structs.replace(
        new,
        habit=habit,
        opened=_opened(counts, habit, last),
        irregular=irregular,
        stopped=_two_greatest([silence.stopped for silence in silences]),
        missed=_two_greatest([silence.missed for silence in silences]),
    )


def observed(since: float, until: float, unobserved: AbstractSet[int]) -> float:
    """Return how many hours of a time were observed, counting a quarter of a year at the most."""
    until = min(until, since + HISTORY)
    return sum(
        min(hour + 1, until) - max(hour, since)
        for hour in range(int(since), int(until) + 1)
        if hour not in unobserved and hour < until
    )


def _two_greatest(values: list[float]) -> tuple[float, float]:
    first, second, *_ = [*sorted(values, reverse=True)[:2], 0.0, 0.0]
    return first, second


def _measure_all(
    counts: Mapping[int, int],
    habit: Habit,
    gaps: list[tuple[int, int]],
    unobserved: AbstractSet[int],
) -> tuple[list[Silence], AbstractSet[int]]:
    """Measure silences between hours with events; return the sessions that are often missed, too.

    It was silent in a half of the two hours around, on an average.
    """
    parts = [_parts(habit, a + 0.5, b + 0.5, unobserved) for a, b in gaps]
    times = Counter(
        session
        for each in parts
        for session, surprise in each
        if session >= 0 and surprise >= NEARLY_ALL * habit.whole[session]
    )
    irregular = {
        session
        for session, number in times.items()
        if habit.whole[session] >= NOTICED
        and number >= 3 + 2 * HISTORY / WEEK * exp(-habit.whole[session])
    }
    silences = [
        _measure(habit, a, each, irregular, opened=_opened(counts, habit, a))
        for (a, _), each in zip(gaps, parts, strict=True)
    ]
    return silences, irregular


def _opened(counts: Mapping[int, int], habit: Habit, last: int) -> bool:
    """Return whether the lab worked as usual in the last hours of its session, up to `last`.

    On a holiday some labs send a few events, which do not mean that they work.
    """
    session = habit.session[hour_of_week(last)]
    if session < 0:  # it may be early
        return habit.session[hour_of_week(last + 1)] >= 0
    events = usual = 0
    for hour in range(last, last - LATELY, -1):
        if habit.session[hour_of_week(hour)] != session:
            break
        events += counts.get(hour, 0)
        usual += habit.usual[hour_of_week(hour)]
    return events >= OPENED * usual


def _parts(habit: Habit, since: float, until: float, unobserved: AbstractSet[int]) -> Parts:
    parts: Parts = []
    until = min(until, since + HISTORY)
    hour = int(since)
    while hour < until:
        slot = hour_of_week(hour)
        session = habit.session[slot]
        share = 0.0 if hour in unobserved else min(hour + 1, until) - max(hour, since)
        before = 0.0
        if parts and parts[-1][0] == session:
            before = parts.pop()[1]
        parts.append((session, before + share * habit.surprise[slot]))
        hour += 1
    return parts


def _measure(
    habit: Habit, last: int, parts: Parts, irregular: AbstractSet[int], *, opened: bool
) -> Silence:
    here = habit.session[hour_of_week(last)]
    if here < 0 and opened:
        here = habit.session[hour_of_week(last + 1)]
    stopped = missed = 0.0
    for place, (session, surprise) in enumerate(parts):
        if session < 0:
            continue
        if opened and session == here and place <= 1 and not stopped and not missed:
            stopped = surprise
        if session not in irregular:
            missed += min(1.0, surprise / max(CERTAIN, MISSED * habit.whole[session]))
    return Silence(stopped, missed, sum(surprise for _, surprise in parts))

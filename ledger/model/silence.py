"""Judges whether labs are silent: how unlikely it is that nothing came from them for so long.

Source: docs/rules.md, "Silence". A pure function of the events by lab and hour, of the receiver's
outages and of `now`.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from ledger.model.lab_habit import WEEK
from ledger.model.lab_silences import (
    CERTAIN,
    HISTORY,
    NEARLY_ALL,
    NOTICED,
    Past,
    Silence,
    look_back,
    observed,
)
from ledger.model.loss_windows import Interval

HearingState = Literal["usual", "quiet", "silent"]

SHORTEST = 1.25
"""Hours of silence before it is told."""

UNKNOWN = 72.0
"""Hours that a lab without a habit must be silent, and three times longer than ever before."""

FACTOR = 1.4
"""How much greater than the second greatest of the quarter a silence must be. The greatest may
have been a loss, and must not hide the next one."""

LONGEST_HOLIDAY = 2.75
"""Sessions that a lab must miss that has missed a whole one in the quarter before."""

YOUNG = 4.0
"""Weeks of a lab's history below which more surprise is asked for, up to half as much again."""

TOLD = 1.2
"""How much more surprise is asked for where the quarter had a silence that was told."""

STOPPED = 8.0
"""The surprise at which a busy lab has stopped at work: nearly 3,000 to one."""

SMALL = 1.9
"""How much more surprise is asked for of a small lab, whose hours may be empty by chance."""

TOGETHER = 3
"""Labs that must be silent at once, and be at least half of those expected to be heard of."""

RECENT = 2.0
"""Hours in which a lab was heard of that works now."""

SHORT = 12
"""Hours up to which tenths of an hour are told."""

ROUNDING = 1e-3
"""Seconds by which a moment in hours may be wrong."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Hearing(Struct, frozen=True):
    """How unusual it is that a lab was not heard of since `since`, UTC.

    `hours` are those of the silence in which deliveries could be received. `with_others` says that
    a silence would be told if not so many labs were silent at once. `odds` says it in words.
    """

    state: HearingState
    since: datetime
    hours: float
    with_others: bool
    odds: str


def judge(
    counts: Mapping[str, Mapping[datetime, int]], now: datetime, outages: Iterable[Interval] = ()
) -> dict[str, Hearing]:
    """Judge labs at the time `now` by the events of each hour, given by the beginning of the hour.

    A lab was heard of last at the end of its last hour with events. Labs without any are left out.
    """
    outages = list(outages)
    unobserved = unobserved_hours(outages, now)
    pasts = {}
    for lab, by_time in counts.items():
        by_hour = {int(hours_of(at)): n for at, n in by_time.items() if n > 0 and at <= now}
        if by_hour:
            since = min(max(by_hour) + 1 - 1e-6, hours_of(now))
            pasts[lab] = look_back(by_hour, since, unobserved)
    return judge_known(pasts, now, unobserved)


def judge_known(
    pasts: Mapping[str, Past], now: datetime, unobserved: AbstractSet[int]
) -> dict[str, Hearing]:
    """Judge labs by what is known of them. Give all labs: many silent at once excuse each other.

    A lab that was heard of less than `SHORTEST` hours ago needs no more than `Past(since)`.
    """
    until = hours_of(now)
    found = {lab: _judge(past, until, unobserved) for lab, past in pasts.items()}
    absent = sum(one.is_absent for one in found.values())
    present = sum(until - past.since < RECENT for past in pasts.values())
    together = absent >= max(TOGETHER, present)
    return {
        lab: _hearing(one, now, unobserved, others=absent - 1 if together else 0)
        for lab, one in found.items()
    }


def unobserved_hours(outages: Iterable[Interval], now: datetime) -> AbstractSet[int]:
    """Return the hours, since 1970, of which outages took a part: an empty one says nothing."""
    until = hours_of(now)
    hours: set[int] = set()
    for outage in outages:
        first = max(int(hours_of(outage.begin)), int(until) - 2 * HISTORY)
        hours.update(range(first, int(min(hours_of(outage.end), until)) + 1))
    return frozenset(hours)


def hours_of(moment: datetime) -> float:
    """Return a time in hours since 1970."""
    return moment.timestamp() / 3600


class _Found(Struct, frozen=True):
    """A lab's state by itself, and what it was judged by."""

    state: HearingState
    hours: float
    past: Past
    silence: Silence | None

    @property
    def is_absent(self) -> bool:
        """Whether the lab should have been heard of, and was, a few days ago."""
        silence = self.silence
        return silence is not None and silence.surprise >= NOTICED and silence.missed < 2 * TOGETHER


def _judge(past: Past, until: float, unobserved: AbstractSet[int]) -> _Found:
    hours = observed(past.since, until, unobserved)
    if hours < SHORTEST:
        return _Found("usual", hours, past, None)
    share = hours / max(UNKNOWN, 3 * past.longest)
    silence = past.measure(until, unobserved)
    state: HearingState = "usual"
    if share >= 1 or (
        silence and (_has_stopped(past, silence) or silence.missed >= _bearable(past))
    ):
        state = "silent"
    elif silence.surprise >= NOTICED if silence else share >= 2 / 3:
        state = "quiet"
    return _Found(state, hours, past, silence)


def _caution(past: Past) -> float:
    told = past.stopped[0] >= CERTAIN or past.missed[0] >= 1
    return max(1.0, min(1.5, YOUNG / past.weeks)) * (TOLD if told else 1.0)


def _has_stopped(past: Past, silence: Silence) -> bool:
    """Return whether the lab stopped while it worked."""
    greatest, second = past.stopped
    # What is greatest by far was a loss and no habit.
    habitual = 1.1 * greatest if greatest < 3 * CERTAIN else 0.0
    certain = STOPPED * _caution(past)
    if past.habit and not past.habit.is_busy:
        certain *= SMALL
    return silence.stopped >= max(certain, FACTOR * second, habitual)


def _bearable(past: Past) -> float:
    """Return how many sessions the lab may miss before that is told."""
    greatest, second = past.missed
    habitual = FACTOR * greatest if greatest < NEARLY_ALL else LONGEST_HOLIDAY
    return _caution(past) * max(1.0, FACTOR * second, habitual)


def _hearing(found: _Found, now: datetime, unobserved: AbstractSet[int], *, others: int) -> Hearing:
    state, past, silence = found.state, found.past, found.silence
    with_others = bool(others) and found.is_absent and state == "silent"
    odds = _odds(found, now, unobserved)
    if with_others:
        # Labs that do not open may have a holiday together; those that stop at work have none.
        if silence and not _has_stopped(past, silence):
            state = "quiet"
        odds += f"; {others} other labs are silent too: a holiday, or nothing comes from the sender"
    since = datetime.fromtimestamp(int(past.since * 3600 + ROUNDING), UTC)
    return Hearing(state, since, round(found.hours, 2), with_others, odds)


def _odds(found: _Found, now: datetime, unobserved: AbstractSet[int]) -> str:
    """Say how often the lab was silent for so long at the same time of the weeks before."""
    past, until = found.past, hours_of(now)
    if found.hours < SHORTEST:
        return "heard of lately"
    length, longest = _length(found.hours), _length(past.longest)
    if found.state == "usual":
        return f"silent for {length}, as usual"
    if past.habit is None:
        return f"silent for {length}, at the most {longest} before; no habit known before two weeks"
    weeks = silent = 0
    whole = until - past.since
    for week in range(1, int(past.weeks) + 1):
        end = int(until - week * WEEK + 0.5)
        span = range(int(end - whole + 0.5), end)
        if whole < WEEK and unobserved.isdisjoint(span):
            weeks += 1
            silent += not any(_was_heard(past, hour) for hour in span)
    utc = now.astimezone(UTC)
    moment = f"{_DAYS[utc.weekday()]} at {utc:%H:%M} UTC"
    if not weeks:
        return f"silent for {length}, at the most {longest} before"
    if not silent:
        return f"in {weeks} weeks never silent for {length} on a {moment}"
    return f"in {silent} of {weeks} weeks silent for {length} on a {moment}"


def _was_heard(past: Past, hour: int) -> bool:
    ago = int(past.since) - hour
    return ago >= 0 and bool(past.heard >> ago & 1)


def _length(hours: float) -> str:
    if hours > WEEK:
        return f"{hours / 24:.0f} days"
    return f"{hours:.0f} h" if hours > SHORT else f"{hours:.1f} h"

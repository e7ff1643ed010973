"""Simulated labs: how many webhooks come from each in each hour of some weeks."""

import math
import random
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from ledger.model.lab_silences import look_back
from ledger.model.silence import SHORTEST, Hearing, hours_of, judge_known

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
"""The first day of each simulation."""

HOUR = timedelta(hours=1)
QUARTER_HOUR = 0.25
EVENTS_OF_A_BILL = 4


class Lab(Struct, frozen=True):
    """A lab as it works, from the hour `opens` to `closes`, which is 0 if it does not open.

    `zone` is that of its clock in hours, set back by one on the day `clock_change`. `noise` is the
    spread of how busy hours are, `growth` a share a week; `batch` hours are sent together.
    """

    bills: int = 200
    opens: int = 8
    closes: int = 20
    saturdays: int = 14
    sundays: int = 0
    zone: float = 5.0
    lunch: bool = False
    noise: float = 0.3
    growth: float = 0.0
    batch: int = 1
    holidays: tuple[int, ...] = ()
    clock_change: int | None = None
    campaign: tuple[int, int] = (0, 0)


Counts = dict[int, int]


def simulate(lab: Lab, seed: int, *, weeks: int = 17) -> Counts:
    """Return a lab's webhooks by hour since 1970, no hour with 0."""
    random_ = random.Random(seed)
    counts: Counts = {}
    for day in range(weeks * 7):
        if day in lab.holidays:
            continue
        closes = {5: lab.saturdays, 6: lab.sundays}.get(day % 7, lab.closes)
        busy = math.exp(random_.gauss(0, 0.15)) * (1 + lab.growth) ** (day / 7)
        if lab.campaign[0] <= day < lab.campaign[1]:
            busy *= 3
        waiting = 0
        for hour in range(lab.opens, closes):
            rate = busy * lab.bills * EVENTS_OF_A_BILL / (lab.closes - lab.opens)
            rate *= math.exp(random_.gauss(0, lab.noise) - lab.noise**2 / 2)
            waiting += 0 if lab.lunch and hour == 13 else _poisson(random_, rate)
            if waiting and ((hour + 1) % lab.batch == 0 or hour + 1 == closes):
                late = lab.clock_change is not None and day >= lab.clock_change
                at = hours_of(MONDAY) + day * 24 + hour - lab.zone + (1 if late else 0)
                for half, events in ((0, waiting // 2), (0.5, waiting - waiting // 2)):
                    if events:
                        counts[int(at + half)] = counts.get(int(at + half), 0) + events
                waiting = 0
    return counts


def _poisson(random_: random.Random, mean: float) -> int:
    if mean > 30:
        return max(0, round(random_.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), random_.random(), 0
    while product > limit:
        product *= random_.random()
        count += 1
    return count


def last_of(hour: int, events: int) -> float:
    """Return the moment of the last event of an hour, as if they came evenly."""
    return hour + events / (events + 1)


def told(
    counts: Counts,
    *,
    after: datetime = MONDAY,
    until: datetime,
    unobserved: AbstractSet[int] = frozenset(),
) -> list[tuple[datetime, datetime]]:
    """Return when each silence was told, looking each quarter of an hour, and when it began."""
    found = []
    for since, end in _gaps(counts, hours_of(until)):
        if end <= hours_of(after) or end - since < SHORTEST:
            continue
        past = look_back(counts, since, unobserved)
        steps = range(math.ceil(since * 4), math.ceil(end * 4))
        for step in steps:
            now = datetime.fromtimestamp(step * 900, UTC)
            if now < after:
                continue
            if judge_known({"lab": past}, now, unobserved)["lab"].state == "silent":
                found.append((now, datetime.fromtimestamp(since * 3600, UTC)))
                break
    return found


def _gaps(counts: Counts, until: float) -> Iterator[tuple[float, float]]:
    hours = sorted(hour for hour in counts if hour < until)
    for here, following in zip(hours, [*hours[1:], None], strict=True):
        end = until if following is None else following + 1 / (counts[following] + 1)
        yield last_of(here, counts[here]), end


def stopped(counts: Counts, at: datetime) -> Counts:
    """Return what came before a time."""
    return {hour: events for hour, events in counts.items() if hour < int(hours_of(at))}


def local(lab: Lab, day: int, hour: float) -> datetime:
    """Return the time at which the clock of a lab shows an hour of a day."""
    return MONDAY + timedelta(days=day, hours=hour - lab.zone)


def judged(
    labs: dict[str, Counts], now: datetime, unobserved: AbstractSet[int] = frozenset()
) -> dict[str, Hearing]:
    """Judge labs of which the counts are those up to now."""
    pasts = {}
    for name, counts in labs.items():
        before = {hour: events for hour, events in counts.items() if hour < hours_of(now)}
        last = max(before)
        pasts[name] = look_back(before, min(last_of(last, before[last]), hours_of(now)), unobserved)
    return judge_known(pasts, now, unobserved)

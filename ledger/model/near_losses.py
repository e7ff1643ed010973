"""Near losses: at which attempt deliveries came, a lab's clock told apart from its lateness.

Source: design, "Near losses". A delay is `received_at` - `event_time` in whole seconds, so it holds
three things: the attempts that failed, the difference of two clocks, and the time in transit. The
first comes in whole intervals, the second is the same all day, the third is short.
"""

from collections.abc import Mapping
from itertools import accumulate

from msgspec import Struct

LONGEST_DELAY = 3600
"""Seconds, either way, up to which a delay is looked at. One beyond tells of no attempt."""

ENOUGH = 20
"""Deliveries from which on a day shows how the clocks differ. Fewer may all be outliers."""

TRANSIT = 3
"""Seconds that rounding to whole seconds and the network commonly add to a delay."""


class Lateness(Struct, frozen=True):
    """How late the deliveries of one lab and day came.

    `attempts` counts them by attempt, the first one at index 0; `unclear` are those that fit none.
    `last_attempt_share` is the part of the others, 0 to 1, that one more failure would have lost.
    `clock_skew_seconds` is how far our clock runs ahead of the lab's, the shortest transit
    included; None if the day does not show it.
    """

    deliveries: int
    attempts: list[int]
    unclear: int
    last_attempt_share: float
    clock_skew_seconds: int | None


def lateness(delays: Mapping[int, int], *, interval: int, count: int) -> Lateness:
    """Tell the attempts from the number of deliveries by delay.

    After the first attempt there are at most `count` more, `interval` seconds (at least 1) apart.
    """
    within = {
        delay: deliveries for delay, deliveries in delays.items() if abs(delay) <= LONGEST_DELAY
    }
    skew = _clock_skew(within, interval, count)
    attempts = [0] * (count + 1)
    for delay, deliveries in within.items():
        attempt = _nearest_attempt(delay - (skew or 0), interval)
        if 0 <= attempt <= count:
            attempts[attempt] += deliveries
    total = sum(delays.values())
    clear = sum(attempts)
    return Lateness(
        deliveries=total,
        attempts=attempts,
        unclear=total - clear,
        last_attempt_share=round(attempts[count] / clear, 4) if clear else 0.0,
        clock_skew_seconds=skew,
    )


def _clock_skew(delays: Mapping[int, int], interval: int, count: int) -> int | None:
    """Return the skew that explains the delays best, None if none explains most of them.

    The earliest delay is the skew and the intervals of the attempt at which it came. Which attempt
    that was is a choice: none before the first, so a delay below zero is all skew.
    """
    total = sum(delays.values())
    if total < ENOUGH:
        return None
    earliest = _earliest(delays)
    latest_attempt = max(0, min(count, _nearest_attempt(earliest, interval)))
    skews = [earliest - attempt * interval for attempt in range(latest_attempt + 1)]
    # Nobody's clock is off by just the interval of the retries: a delay that a retry explains is
    # lateness. One that none explains is skew, and the earliest was most likely a first attempt.
    if _on_schedule(earliest, interval, count):
        skews.reverse()
    # Either guess yields to more than a few deliveries that it leaves unexplained: some that came
    # whole intervals before the earliest, or after the last attempt there can be.
    few = max(2, total // 100)
    explained = {
        skew: sum(
            deliveries
            for delay, deliveries in delays.items()
            if _on_schedule(delay - skew, interval, count)
        )
        for skew in skews
    }
    best = max(skews, key=lambda skew: explained[skew] - few * skews.index(skew))
    # A lab may have several clocks, or send what had to wait: then there is no one skew, and to
    # shift all by the earliest would turn good deliveries into late ones.
    return best if 2 * explained[best] > total else None


def _earliest(delays: Mapping[int, int]) -> int:
    """Return the delay that one in twenty come before: outliers are not the earliest."""
    ordered = sorted(delays)
    passed = accumulate(delays[delay] for delay in ordered)
    outliers = sum(delays.values()) // 20
    return next(delay for delay, so_far in zip(ordered, passed, strict=True) if so_far > outliers)


def _nearest_attempt(delay: int, interval: int) -> int:
    """Return the delay in intervals, rounded; a half goes down, since transit only ever adds."""
    return -((interval - 2 * delay) // (2 * interval))


def _on_schedule(delay: int, interval: int, count: int) -> bool:
    """Tell whether a delay, free of skew, is what one of the attempts would give."""
    attempt = _nearest_attempt(delay, interval)
    # An attempt that runs into its time-out, at Flabs a twelfth of the interval, may put off those
    # after it by as much. Of a short interval a twelfth is less than transit takes.
    slack = max(TRANSIT, interval // 12)
    off = delay - attempt * interval
    return 0 <= attempt <= count and -slack <= off <= slack * (attempt + 1)

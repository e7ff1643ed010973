"""Finds near losses: which attempt each delivery was, corrected for the skew of the lab's clock.

Source: docs/rules.md, "Near losses". A delay is `received_at` - `event_time` in whole seconds. It
is the sum of the failed attempts, the difference of two clocks and the time in transit. The first
comes in whole intervals, the second is the same all day, the third is short.
"""

from collections.abc import Mapping
from itertools import accumulate

from msgspec import Struct

LONGEST_DELAY = 3600
"""Seconds, positive or negative. A longer delay does not show which attempt it was."""

ENOUGH = 20
"""Deliveries a day that are needed to estimate the clock skew. Fewer may all be outliers."""

TRANSIT = 3
"""Seconds that rounding and the network usually add to a delay."""


class Lateness(Struct, frozen=True):
    """How late the deliveries of one lab and day were.

    `attempts` counts deliveries by attempt, the first attempt at index 0; `unclear` counts those
    that fit no attempt. `last_attempt_share` is the share, 0 to 1, of the clear ones that one more
    failure would have lost. `clock_skew_seconds` is how far our clock is ahead of the lab's, the
    shortest transit included; None if the day does not show it.
    """

    deliveries: int
    attempts: list[int]
    unclear: int
    last_attempt_share: float
    clock_skew_seconds: int | None


def lateness(delays: Mapping[int, int], *, interval: int, count: int) -> Lateness:
    """Estimate the attempt of each delivery, given the number of deliveries for each delay.

    At most `count` attempts follow the first, `interval` seconds (at least 1) apart.
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

    The earliest delay is the skew plus the intervals before its attempt. Each possible attempt
    gives one candidate; a negative delay must be a first attempt, so it is all skew.
    """
    total = sum(delays.values())
    if total < ENOUGH:
        return None
    earliest = _earliest(delays)
    latest_attempt = max(0, min(count, _nearest_attempt(earliest, interval)))
    skews = [earliest - attempt * interval for attempt in range(latest_attempt + 1)]
    # No clock is wrong by exactly the retry interval, so a delay that a retry explains is lateness.
    # A delay that no retry explains is skew, and the earliest was most likely a first attempt.
    if _on_schedule(earliest, interval, count):
        skews.reverse()
    # Another candidate wins if it explains more than a few deliveries that the preferred one does
    # not: whole intervals before the earliest delay, or after the last possible attempt.
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
    # A lab may have several clocks, or a queue of its own: then there is no single skew, and
    # subtracting the earliest delay would turn punctual deliveries into late ones.
    return best if 2 * explained[best] > total else None


def _earliest(delays: Mapping[int, int]) -> int:
    """Return the fifth percentile of the delays, because the very earliest may be outliers."""
    ordered = sorted(delays)
    passed = accumulate(delays[delay] for delay in ordered)
    outliers = sum(delays.values()) // 20
    return next(delay for delay, so_far in zip(ordered, passed, strict=True) if so_far > outliers)


def _nearest_attempt(delay: int, interval: int) -> int:
    """Return the delay in intervals, rounded; halves go down, because transit only adds."""
    return -((interval - 2 * delay) // (2 * interval))


def _on_schedule(delay: int, interval: int, count: int) -> bool:
    """Return whether a delay without skew fits one of the attempts."""
    attempt = _nearest_attempt(delay, interval)
    # An attempt that times out, at Flabs after a twelfth of the interval, may delay the attempts
    # after it by as much. For a short interval a twelfth is less than the time in transit.
    slack = max(TRANSIT, interval // 12)
    off = delay - attempt * interval
    return 0 <= attempt <= count and -slack <= off <= slack * (attempt + 1)

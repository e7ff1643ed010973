"""Near losses: the rule, and deliveries simulated with a known clock and known attempts."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ledger.model.near_losses import lateness
from tests.support.events import rule
from tests.support.examples import examples

# How fast the machine is today is no property of the arithmetic.
at_leisure = settings(
    deadline=None, max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow]
)

TRANSIT = 3
"""The most seconds that a simulated delivery takes, rounding included."""


def cluster(delay: int, deliveries: int) -> dict[int, int]:
    """Give deliveries that took 0 to 3 seconds more than the delay, most of them little."""
    shares = Counter({delay: deliveries - deliveries // 2})
    shares[delay + 1] = deliveries // 2 - deliveries // 8
    shares[delay + 3] = deliveries // 8
    return dict(shares)


def day(*clusters: tuple[int, int]) -> dict[int, int]:
    """Add up clusters, each given as delay and deliveries."""
    delays: Counter[int] = Counter()
    for delay, deliveries in clusters:
        delays.update(cluster(delay, deliveries))
    return dict(delays)


@pytest.mark.parametrize(
    ("delays", "attempts", "unclear", "skew"),
    [
        rule("no delivery", {}, [0, 0, 0, 0], 0, None),
        # Few deliveries: the plain rule.
        rule("one by one", {0: 3, 1: 2, 120: 4, 241: 1, 362: 2}, [5, 4, 1, 2], 0, None),
        rule(
            "to the nearest attempt; before the first and after the last it is unclear",
            {-60: 1, -59: 1, 60: 1, 61: 1, 419: 1, 420: 1, 421: 1},
            [2, 1, 0, 2],
            2,
            None,
        ),
        rule("nineteen are too few for a skew", {-700: 19}, [0, 0, 0, 0], 19, None),
        rule("twenty are enough", {-700: 20}, [20, 0, 0, 0], 0, -700),
        rule("those out of range do not count", {0: 19, 3601: 500}, [19, 0, 0, 0], 500, None),
        rule("out of range is unclear", {5: 100, 3601: 7, -3601: 4}, [100, 0, 0, 0], 11, 5),
        # Clocks agree.
        rule(
            "late by attempts",
            day((0, 700), (120, 150), (240, 100), (360, 50)),
            [700, 150, 100, 50],
            0,
            0,
        ),
        rule("none at the first attempt", day((120, 60), (240, 40)), [0, 60, 40, 0], 0, 0),
        rule("all at the last attempt", day((360, 40)), [0, 0, 0, 40], 0, 0),
        rule(
            "each attempt put off by the time-outs before it",
            day((0, 50), (130, 30), (260, 20), (390, 20)),
            [50, 30, 20, 20],
            0,
            0,
        ),
        rule("all at the last, put off by time-outs", day((388, 40)), [0, 0, 0, 40], 0, 28),
        # Clocks differ.
        rule("our clock ahead", day((70, 100)), [100, 0, 0, 0], 0, 70),
        rule("the lab's clock ahead", day((-45, 100)), [100, 0, 0, 0], 0, -45),
        rule(
            "late, the lab's clock ahead",
            day((-45, 60), (75, 20), (195, 10), (315, 10)),
            [60, 20, 10, 10],
            0,
            -45,
        ),
        rule(
            "late, our clock ahead",
            day((70, 60), (190, 20), (310, 10), (430, 10)),
            [60, 20, 10, 10],
            0,
            70,
        ),
        rule("before the first all is skew", day((-120, 60), (0, 40)), [60, 40, 0, 0], 0, -120),
        rule("later than any attempt is skew", day((3000, 60)), [60, 0, 0, 0], 0, 3000),
        rule(
            "an interval of skew shows by an attempt after the last",
            day((120, 60), (240, 20), (360, 10), (480, 10)),
            [60, 20, 10, 10],
            0,
            120,
        ),
        rule("two such may be outliers", day((120, 600), (480, 2)), [0, 600, 0, 0], 2, 0),
        rule(
            "a few that came an interval before are enough to call the others late",
            day((70, 30), (190, 970)),
            [30, 970, 0, 0],
            0,
            70,
        ),
        # No outlier decides, and no minority.
        rule("one of twenty far too early", {-700: 1, 0: 19}, [19, 0, 0, 0], 1, 0),
        rule("two far too early", {-700: 2, **day((0, 90), (120, 8))}, [90, 8, 0, 0], 2, 0),
        rule("two clocks: the plain rule", day((-300, 10), (0, 90)), [90, 0, 0, 0], 10, None),
        rule(
            "no order in them: the plain rule",
            dict.fromkeys(range(-1000, 1000), 1),
            [120, 120, 120, 120],
            1520,
            None,
        ),
    ],
)
def test_lateness(
    delays: dict[int, int], attempts: list[int], unclear: int, skew: int | None
) -> None:
    found = lateness(delays, interval=120, count=3)
    assert (found.attempts, found.unclear, found.clock_skew_seconds) == (attempts, unclear, skew)
    assert found.deliveries == sum(delays.values())


def test_the_share_of_the_last_attempt_is_of_those_that_are_clear() -> None:
    found = lateness(day((0, 200), (120, 50), (360, 50)) | {3601: 500}, interval=120, count=3)
    assert found.last_attempt_share == 0.1667
    assert lateness({3601: 5}, interval=120, count=3).last_attempt_share == 0.0
    assert lateness({}, interval=120, count=3).last_attempt_share == 0.0


def test_without_retries_the_first_attempt_is_the_last() -> None:
    found = lateness(day((0, 30), (120, 2)), interval=120, count=0)
    assert (found.attempts, found.unclear, found.last_attempt_share) == ([30], 2, 1.0)


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
def test_short_intervals_count_attempts(interval: int) -> None:
    deliveries = {attempt * interval: 10 for attempt in range(4)}
    found = lateness(deliveries, interval=interval, count=3)
    assert (found.attempts, found.clock_skew_seconds) == ([10, 10, 10, 10], 0)


@pytest.mark.parametrize(
    ("interval", "delay", "attempts", "skew"),
    [
        (24, 30, [0, 40], 6),
        (24, 31, [40, 0], 31),
        (24, 21, [0, 40], -3),
        (24, 20, [40, 0], 20),
        (600, 700, [0, 40], 100),
        (600, 701, [40, 0], 701),
        (600, 550, [0, 40], -50),
        (600, 549, [40, 0], 549),
    ],
)
def test_what_is_near_a_retry_depends_on_the_interval(
    interval: int, delay: int, attempts: list[int], skew: int
) -> None:
    found = lateness({delay: 40}, interval=interval, count=1)
    assert (found.attempts, found.clock_skew_seconds) == (attempts, skew)


def test_an_interval_beyond_the_range_leaves_the_first_attempt() -> None:
    found = lateness(day((2000, 30)), interval=86_400, count=3)
    assert (found.attempts, found.clock_skew_seconds) == ([30, 0, 0, 0], 2000)


def simulated(
    attempts: list[int], *, interval: int, skew: int, chance: random.Random
) -> dict[int, int]:
    """Deliver so many at each attempt: 0 to 3 seconds in transit, our clock ahead by the skew."""
    return Counter(
        attempt * interval + skew + chance.randint(0, TRANSIT)
        for attempt, deliveries in enumerate(attempts)
        for _ in range(deliveries)
    )


intervals = st.integers(5, 25).map(lambda minutes: minutes * 12)
late = st.lists(st.integers(0, 60), min_size=0, max_size=3)
seeds = st.randoms(use_true_random=False)


@pytest.mark.slow
@at_leisure
@given(interval=intervals, first=st.integers(30, 300), late=late, chance=seeds, draw=st.data())
def test_attempts_are_told_whatever_the_skew(
    interval: int, first: int, late: list[int], chance: random.Random, draw: st.DataObject
) -> None:
    small = st.integers(-interval // 2 + TRANSIT, interval // 2 - TRANSIT)
    ahead = st.integers(-2000, -interval // 2)
    # Away from the delays that a retry gives, which may be put off by time-outs.
    beside = st.tuples(
        st.integers(0, 2), st.integers(interval // 4 + 1, interval - interval // 6)
    ).map(lambda skew: skew[0] * interval + skew[1])
    beyond = st.integers((len(late) + 1) * interval, 3600 - TRANSIT - len(late) * interval)
    skew = draw.draw(small | ahead | beside | beyond)

    attempts = [first, *late]
    delays = simulated(attempts, interval=interval, skew=skew, chance=chance)
    found = lateness(delays, interval=interval, count=len(late))
    assert (found.attempts, found.unclear) == (attempts, 0)
    assert found.clock_skew_seconds is not None
    assert skew <= found.clock_skew_seconds <= skew + TRANSIT


@at_leisure
@given(interval=intervals, late=late, skew=st.integers(-5, 2), chance=seeds)
def test_a_day_with_no_first_attempt_is_late_if_the_clocks_nearly_agree(
    interval: int, late: list[int], skew: int, chance: random.Random
) -> None:
    assume(sum(late) >= 20)
    attempts = [0, *late]
    delays = simulated(attempts, interval=interval, skew=skew, chance=chance)
    found = lateness(delays, interval=interval, count=len(late))
    assert (found.attempts, found.unclear) == (attempts, 0)


@at_leisure
@given(
    delays=st.dictionaries(
        st.integers(-3601, 3601) | st.integers(-10, 10) | st.integers(), st.integers(0, 50)
    ),
    interval=st.integers(1, 5) | st.integers(1, 86_400),
    count=st.integers(0, 5) | st.integers(0, 100),
)
def test_every_delivery_is_counted_once(delays: dict[int, int], interval: int, count: int) -> None:
    found = lateness(delays, interval=interval, count=count)
    assert found.deliveries == sum(delays.values())
    assert len(found.attempts) == count + 1
    assert sum(found.attempts) + found.unclear == found.deliveries
    assert min(found.attempts) >= 0
    assert found.unclear >= sum(
        deliveries for delay, deliveries in delays.items() if abs(delay) > 3600
    )
    assert 0 <= found.last_attempt_share <= 1

"""Loss windows against a simulation that looks at every second and every attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.model.loss_windows import (
    Interval,
    difference,
    intersection,
    loss_windows,
    outages,
    union,
)
from tests.support.examples import examples

# How fast the machine is today is no property of the arithmetic.
at_leisure = settings(
    deadline=None, max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow]
)

START = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LAST = 90
"""The last moment that a drawn interval touches."""

Spans = list[tuple[int, int]]

moments = st.integers(0, LAST)
spans = st.lists(st.tuples(moments, moments), max_size=8)
# Alive for a moment or a few, again and again: a receiver that restarts in a loop.
flapping = st.lists(st.tuples(moments, st.integers(1, 3)), max_size=30).map(
    lambda blips: [(begin, begin + length) for begin, length in blips]
)
units = st.sampled_from([SECOND, timedelta(microseconds=1)])


def intervals(spans: Spans, unit: timedelta = SECOND) -> list[Interval]:
    return [Interval(START + begin * unit, START + end * unit) for begin, end in spans]


def at(*spans: tuple[int, int]) -> list[Interval]:
    return intervals(list(spans))


def seconds(spans: Spans) -> set[int]:
    return {second for begin, end in spans for second in range(begin, end)}


def canonical(among: set[int], unit: timedelta = SECOND) -> list[Interval]:
    """Give the one list that stands for a set of moments."""
    begins = sorted(moment for moment in among if moment - 1 not in among)
    ends = sorted(moment + 1 for moment in among if moment + 1 not in among)
    return intervals(list(zip(begins, ends, strict=True)), unit)


@at_leisure
@given(spans)
def test_union_is_that_of_sets(a: Spans) -> None:
    assert union(intervals(a)) == canonical(seconds(a))


@at_leisure
@given(spans, spans)
def test_intersection_is_that_of_sets(a: Spans, b: Spans) -> None:
    found = intersection(union(intervals(a)), union(intervals(b)))
    assert found == canonical(seconds(a) & seconds(b))


@at_leisure
@given(spans | flapping, spans | flapping)
def test_difference_is_that_of_sets(a: Spans, b: Spans) -> None:
    found = difference(union(intervals(a)), union(intervals(b)))
    assert found == canonical(seconds(a) - seconds(b))


@at_leisure
@given(
    alive=st.lists(spans | flapping, max_size=4),
    refused=spans,
    since=moments,
    until=moments,
    interval=st.integers(1, 20),
    count=st.integers(0, 4),
    unit=units,
)
def test_an_event_is_lost_if_no_instance_was_alive_at_any_of_its_attempts(
    *,
    alive: list[Spans],
    refused: Spans,
    since: int,
    until: int,
    interval: int,
    count: int,
    unit: timedelta,
) -> None:
    down = {
        second
        for second in range(since, until)
        if second in seconds(refused) or not any(second in seconds(instance) for instance in alive)
    }
    lost = {
        second
        for second in range(since, until)
        if all(second + attempt * interval in down for attempt in range(count + 1))
    }

    found = outages(
        [each for instance in alive for each in intervals(instance, unit)],
        intervals(refused, unit),
        since=START + since * unit,
        until=START + until * unit,
    )
    assert found == canonical(down, unit)
    assert loss_windows(found, interval=interval * unit, count=count) == canonical(lost, unit)


@pytest.mark.slow
@at_leisure
@given(st.lists(st.tuples(moments, moments), min_size=1, max_size=5), st.integers(5, 100))
def test_many_retries_are_as_exact_as_few(a: Spans, count: int) -> None:
    lost = {
        second
        for second in seconds(a)
        if all(second + attempt in seconds(a) for attempt in range(count + 1))
    }
    assert loss_windows(union(intervals(a)), interval=SECOND, count=count) == canonical(lost)


def test_of_one_outage_all_but_the_time_of_the_retries_is_lost() -> None:
    assert windows(at((1000, 2000))) == at((1000, 1640))


def test_an_outage_no_longer_than_the_retries_loses_nothing() -> None:
    assert windows(at((1000, 1360))) == []
    microsecond = timedelta(microseconds=1)
    [outage] = at((1000, 1360))
    longer = Interval(outage.begin, outage.end + microsecond)
    assert windows([longer]) == [Interval(outage.begin, outage.begin + microsecond)]


def test_short_outages_lose_what_meets_one_at_every_attempt() -> None:
    # Down for the first 60 of every 120 seconds, four times: the retries keep in step with it.
    in_step = at((0, 60), (120, 180), (240, 300), (360, 420))
    assert windows(in_step) == at((0, 60))
    assert windows(in_step[:3]) == []
    # Up for a second in the midst of a long outage: each attempt of an event may hit that second.
    assert windows(at((0, 1000), (1001, 2000))) == at(
        (0, 640), (641, 760), (761, 880), (881, 1000), (1001, 1640)
    )


def test_an_outage_ends_when_one_of_several_instances_is_alive() -> None:
    first, second = at((0, 100), (500, 900)), at((50, 300), (700, 1000))
    found = outages([*second, *first], [], since=START, until=START + 1000 * SECOND)
    assert found == at((300, 500))


def test_times_before_the_first_start_and_yet_to_come_are_no_outage() -> None:
    found = outages(at((100, 200)), [], since=START + 100 * SECOND, until=START + 1000 * SECOND)
    assert found == at((200, 1000))
    # What happened at 640 is tried again at 1000, of which nothing is known yet.
    assert windows(found) == at((200, 640))


def test_a_receiver_never_alive_was_out_all_the_time() -> None:
    assert outages([], [], since=START, until=START + 5 * SECOND) == at((0, 5))
    assert outages([], [], since=START, until=START) == []


def test_without_retries_all_of_an_outage_is_lost() -> None:
    assert loss_windows(at((0, 5), (7, 8)), interval=SECOND, count=0) == at((0, 5), (7, 8))


def test_thousands_of_outages_and_a_hundred_retries() -> None:
    # Up for the last second of every 500: retries 500 apart keep in step, and the last are cut off.
    outage = [(begin, begin + 499) for begin in range(0, 2_500_000, 500)]
    found = loss_windows(intervals(outage), interval=500 * SECOND, count=100)
    assert found == intervals(outage[:-100])


def windows(found: list[Interval]) -> list[Interval]:
    """Give the loss windows for Flabs' retries."""
    return loss_windows(found, interval=120 * SECOND, count=3)

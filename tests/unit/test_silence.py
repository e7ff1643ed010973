"""Silence (docs/rules.md): which labs are told to be silent, and when, on simulated labs."""

from datetime import timedelta
from itertools import product

import pytest

from ledger.model.loss_windows import Interval
from ledger.model.silence import hours_of, judge, unobserved_hours
from tests.support.labs import HOUR, MONDAY, Lab, judged, local, simulate, stopped, told

END = MONDAY + timedelta(weeks=17, days=-1)
BEGIN = MONDAY + timedelta(weeks=4)
"""A quarter of a year, after four weeks in which the habit is learned."""

KINDS = {
    "plain": Lab(),
    "uneven": Lab(noise=0.8),
    "half an hour off": Lab(zone=5.5),
    "lunch": Lab(lunch=True, opens=9, closes=18),
    "day and night": Lab(opens=0, closes=24, saturdays=24, sundays=24),
    "mornings": Lab(opens=6, closes=13, sundays=13),
    "batches": Lab(batch=3, saturdays=20),
    "growing": Lab(growth=0.1),
    "shrinking": Lab(growth=-0.08),
    "clock change": Lab(zone=-5, saturdays=0, clock_change=70),
    "a campaign": Lab(campaign=(50, 64)),
    "a holiday": Lab(holidays=(60,)),
    "a long holiday": Lab(holidays=(59, 60, 61)),
    "two holidays": Lab(holidays=(44, 86)),
}


def of_size(lab: Lab, bills: int) -> Lab:
    return Lab(**{field: getattr(lab, field) for field in lab.__struct_fields__} | {"bills": bills})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bills"), [*product(KINDS, [200]), *product(["plain", "uneven"], [5, 50, 5000])]
)
def test_a_quarter_has_one_false_alarm_at_the_most(kind: str, bills: int) -> None:
    lab = of_size(KINDS[kind], bills)

    alarms = told(simulate(lab, seed=bills), after=BEGIN, until=END)

    assert len(alarms) <= 1
    if not lab.holidays and lab.noise < 0.5:
        assert not alarms


@pytest.mark.parametrize(
    "kind", ["plain", "uneven", "lunch", "day and night", "growing", "shrinking"]
)
@pytest.mark.parametrize(("bills", "weeks"), [(200, 4), (200, 10), (5000, 10)])
def test_a_busy_lab_that_stops_at_ten_is_told_within_two_hours(
    kind: str, bills: int, weeks: int
) -> None:
    lab = of_size(KINDS[kind], bills)
    at = local(lab, weeks * 7 + 2, 10)
    counts = stopped(simulate(lab, seed=bills), at)

    [(when, _)] = told(counts, after=at - HOUR, until=at + 24 * HOUR)

    assert when - at <= 2 * HOUR


@pytest.mark.parametrize(("bills", "days"), [(5, 3), (20, 2), (50, 1)])
def test_a_small_lab_that_stops_is_told_within_days(bills: int, days: int) -> None:
    lab = Lab(bills=bills, saturdays=20)
    at = local(lab, 71, 10)  # a Wednesday
    counts = stopped(simulate(lab, seed=bills), at)

    [(when, _)] = told(counts, after=at, until=at + 7 * 24 * HOUR)

    assert when - at <= days * 24 * HOUR


def test_a_lab_that_does_not_open_is_told_the_same_day() -> None:
    lab = Lab()
    at = local(lab, 72, 5)
    counts = stopped(simulate(lab, seed=1), at)

    [(when, since)] = told(counts, after=at, until=at + 48 * HOUR)

    assert local(lab, 72, 10) < when < local(lab, 72, 20)
    assert since < local(lab, 71, 20)


def test_an_earlier_loss_does_not_hide_the_next_one() -> None:
    lab = Lab()
    counts = simulate(lab, seed=3)
    lost = range(int(hours_of(local(lab, 50, 10))), int(hours_of(local(lab, 52, 12))))
    at = local(lab, 80, 10)
    rest = {hour: n for hour, n in stopped(counts, at).items() if hour not in lost}

    alarms = told(rest, after=BEGIN, until=at + 12 * HOUR)

    assert [when - at <= 2.5 * HOUR for when, _ in alarms] == [True, True]
    assert [since > at - 2 * HOUR for _, since in alarms] == [False, True]


def test_an_event_ends_a_silence() -> None:
    lab = Lab()
    at = local(lab, 72, 10)
    counts = stopped(simulate(lab, seed=1), at)
    later = at + 4 * HOUR

    assert judged({"lab": counts}, later)["lab"].state == "silent"
    counts[int(hours_of(later - HOUR / 2))] = 1
    assert judged({"lab": counts}, later)["lab"].state == "usual"


def test_an_outage_of_the_receiver_is_no_silence_and_no_habit() -> None:
    lab = Lab()
    counts = simulate(lab, seed=1)
    begin, end = local(lab, 72, 9.5), local(lab, 72, 17.5)
    outages = [Interval(begin, end)]
    out = unobserved_hours(outages, END)
    heard = {hour: n for hour, n in counts.items() if hour not in out}

    assert told(heard, after=begin, until=end, unobserved=out) == []
    assert told(heard, after=begin, until=end), "it would be one, were it not known"
    # Nor does it make the next silence harder to tell.
    at = local(lab, 73, 10)
    [(when, _)] = told(stopped(heard, at), after=at, until=at + 9 * HOUR, unobserved=out)
    assert when - at <= 2 * HOUR


def test_what_was_before_a_labs_first_event_is_no_silence() -> None:
    lab = Lab()
    new = {h: n for h, n in simulate(lab, seed=1).items() if h >= hours_of(local(lab, 42, 0))}
    at = local(lab, 70, 10)

    assert told(new, until=at) == []
    [(when, _)] = told(stopped(new, at), after=at, until=at + 9 * HOUR)
    assert when - at <= 2 * HOUR


@pytest.mark.parametrize("begins", range(7))
def test_a_new_lab_is_not_told_at_night_or_on_its_first_sunday(begins: int) -> None:
    lab = Lab(bills=50, saturdays=0)
    counts = simulate(lab, seed=begins)
    new = {h: n for h, n in counts.items() if h >= hours_of(local(lab, begins, 0))}

    assert told(new, until=local(lab, begins + 28, 0)) == []


def test_a_new_lab_that_stops_is_told_after_days() -> None:
    lab = Lab()
    at = local(lab, 4, 12)
    counts = stopped(simulate(lab, seed=1), at)

    assert judged({"lab": counts}, at + 70 * HOUR)["lab"].state == "quiet"
    assert judged({"lab": counts}, at + 74 * HOUR)["lab"].state == "silent"


def test_labs_that_do_not_open_at_once_have_a_holiday_together() -> None:
    labs = {f"lab {number}": Lab(bills=100 + number) for number in range(8)}
    counts = {name: stopped(simulate(lab, seed=9), local(lab, 72, 0)) for name, lab in labs.items()}
    counts["open"] = simulate(Lab(), seed=9)

    found = judged(counts, local(Lab(), 72, 17))

    assert found.pop("open").state == "usual"
    assert {(one.state, one.with_others) for one in found.values()} == {("quiet", True)}
    assert found["lab 1"].odds.endswith(
        "; 7 other labs are silent too: a holiday, or nothing comes from the sender"
    )
    alone = {name: simulate(lab, seed=9) for name, lab in labs.items()} | {"x": counts["lab 1"]}
    hearing = judged(alone, local(Lab(), 72, 17))["x"]
    assert (hearing.state, hearing.with_others) == ("silent", False)


def test_labs_that_stop_at_once_have_no_holiday() -> None:
    at = local(Lab(), 72, 10)
    counts = {f"lab {seed}": stopped(simulate(Lab(), seed), at) for seed in range(4)}

    found = judged(counts, at + 3 * HOUR)

    assert {(one.state, one.with_others) for one in found.values()} == {("silent", True)}


def test_the_odds_are_told_in_words() -> None:
    lab = Lab(holidays=(65,))
    at = local(lab, 72, 10)  # a Wednesday, 5:00 in UTC
    counts = {"lab": simulate(lab, seed=1)}
    counts["lab"] = stopped(counts["lab"], at)

    def odds(hours: float) -> str:
        return judged(counts, at + hours * HOUR)["lab"].odds

    assert odds(0) == "heard of lately"
    night = judged({"lab": simulate(lab, seed=1)}, local(lab, 72, 6))["lab"]
    assert night.odds == "silent for 10.0 h, as usual"
    assert odds(4) == "in 1 of 10 weeks silent for 4.0 h on a Wednesday at 09:00 UTC"
    assert odds(10) == "in 1 of 10 weeks silent for 10.0 h on a Wednesday at 15:00 UTC"
    assert odds(34) == "in 10 weeks never silent for 34 h on a Thursday at 15:00 UTC"
    assert odds(240) == "silent for 10 days, at the most 42 h before"
    new = {"lab": {h: n for h, n in counts["lab"].items() if h > hours_of(at) - 48}}
    assert judged(new, at + 75 * HOUR)["lab"].odds == (
        "silent for 75 h, at the most 12.0 h before; no habit known before two weeks"
    )


def test_counts_by_time_are_judged_by_the_end_of_their_last_hour() -> None:
    lab = Lab()
    at = local(lab, 72, 10)
    counts = stopped(simulate(lab, seed=1), at)
    by_time = {MONDAY + (hour - hours_of(MONDAY)) * HOUR: n for hour, n in counts.items()}

    found = judge({"lab": by_time, "none": {}, "zero": {at: 0}}, at + 2 * HOUR)

    assert found.keys() == {"lab"}
    assert (found["lab"].state, found["lab"].hours) == ("silent", 2.0)
    assert abs(found["lab"].since - at) <= timedelta(seconds=1)
    assert judge({"lab": by_time}, at + HOUR)["lab"].state == "usual"
    away = [Interval(at, at + 2 * HOUR)]
    assert judge({"lab": by_time}, at + 2 * HOUR, away)["lab"].state == "usual"

from collections.abc import Callable, Iterator

import pytest

from ledger.simulator.history import Event, History, bills, events
from ledger.simulator.plan import PLAIN, Fate, Faults, PlannedEvent, arrivals, plan

HISTORY = History(seed=7, start=1_705_708_800, bills=4000, labs=5, test_data="snapshot")


def planned(faults: Faults, *, count: int = 4000, seed: int = 7) -> list[PlannedEvent]:
    made = History(seed=7, start=HISTORY.start, bills=count, labs=5, test_data="snapshot")
    return list(plan(bills(made), faults, seed))


def share(plan: list[PlannedEvent], of: Callable[[Fate], bool]) -> float:
    return sum(of(each.fate) for each in plan) / len(plan)


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5])
def test_the_shares_are_near_the_probabilities(probability: float) -> None:
    # About 20,000 events: three standard deviations are at most 0.0107.
    near = pytest.approx(probability, abs=0.011)
    assert share(planned(Faults(drop=probability)), lambda fate: fate.dropped) == near
    assert share(planned(Faults(late=probability)), lambda fate: fate.attempt > 1) == near
    assert share(planned(Faults(duplicate=probability)), lambda fate: fate.duplicate) == near
    assert share(planned(Faults(reorder=probability)), lambda fate: fate.reordered) == near


@pytest.mark.parametrize("attempt", [2, 3, 4])
def test_late_events_are_spread_over_the_retries(attempt: int) -> None:
    late = planned(Faults(late=1.0))
    assert share(late, lambda fate: fate.attempt == attempt) == pytest.approx(1 / 3, abs=0.011)


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    faults = Faults(drop=0.1, late=0.1, duplicate=0.1, reorder=0.1)
    assert planned(faults, count=300) == planned(faults, count=300)
    assert planned(faults, count=300) != planned(faults, count=300, seed=8)


def test_without_faults_the_history_is_sent_as_it_happened() -> None:
    plain = planned(Faults(), count=300)
    made = History(seed=7, start=HISTORY.start, bills=300, labs=5, test_data="snapshot")
    assert [each.event for each in plain] == list(events(made))
    assert {each.fate for each in plain} == {PLAIN}
    assert [each.number for each in plain] == list(range(1, len(plain) + 1))


def test_faults_do_not_change_what_happens() -> None:
    def bodies(plan: list[PlannedEvent]) -> list[bytes]:
        return sorted(each.event.body for each in plan)

    every = Faults(drop=0.3, late=0.3, duplicate=0.3, reorder=0.3)
    assert bodies(planned(every, count=300)) == bodies(planned(Faults(), count=300))


def test_what_is_dropped_at_a_probability_is_dropped_at_a_greater_one() -> None:
    def dropped(faults: Faults) -> set[bytes]:
        return {each.event.body for each in planned(faults, count=300) if each.fate.dropped}

    few = dropped(Faults(drop=0.1))
    assert few
    assert few < dropped(Faults(drop=0.2, late=0.5, duplicate=0.5, reorder=0.5))


def test_certain_faults_strike_every_event() -> None:
    assert share(planned(Faults(drop=1.0), count=300), lambda fate: fate.dropped) == 1
    everything = planned(Faults(late=1.0, duplicate=1.0, reorder=1.0), count=300)
    assert share(everything, lambda fate: fate.duplicate and fate.reordered) == 1


def test_a_reordered_event_is_sent_after_a_later_one_of_its_bill() -> None:
    sent = planned(Faults(reorder=0.1))
    own: dict[str, list[PlannedEvent]] = {}
    for each in sent:
        own.setdefault(each.event.bill_id, []).append(each)
    alone = [bill for bill in own.values() if sum(each.fate.reordered for each in bill) == 1]
    assert len(alone) > 500
    for bill in alone:
        at = next(index for index, each in enumerate(bill) if each.fate.reordered)
        held = bill[at]
        others = bill[:at] + bill[at + 1 :]
        assert others == sorted(others, key=lambda each: each.event.event_time)
        overtaken = any(
            each.event.event_time >= held.event.event_time and index < at
            for index, each in enumerate(bill)
        )
        was_last = all(each.event.event_time <= held.event.event_time for each in others)
        assert overtaken or was_last


def test_plans_come_in_order_of_sending() -> None:
    sent = planned(Faults(reorder=0.3), count=300)
    assert [each.send_at for each in sent] == sorted(each.send_at for each in sent)


def test_late_events_arrive_their_retries_later() -> None:
    sent = planned(Faults(late=0.3), count=2000)
    arrived = list(arrivals(iter(sent), 120))
    times = [each.send_at + 120 * (each.fate.attempt - 1) for each in arrived]
    assert times == sorted(times)
    assert sorted(each.number for each in arrived) == [each.number for each in sent]
    assert [each.number for each in arrived] != [each.number for each in sent]


def test_the_plan_asks_for_a_bill_only_when_it_is_due() -> None:
    asked = 0

    def counted() -> Iterator[list[Event]]:
        nonlocal asked
        for bill in bills(HISTORY):
            asked += 1
            yield bill

    stream = plan(counted(), Faults(drop=0.1), 7)
    next(stream)
    assert asked < 5

"""Events that support sends again with another time: they are no second fact."""

import dataclasses
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.model.bill import Bill, fold
from ledger.model.bill_history import LoggedEvent, resent
from ledger.model.operator_events import LoggedDecision
from tests.support.decisions import REPORTS, requested
from tests.support.events import DONE, Said, completed, created, deleted, moment, report, rule

LATER = 500
"""Seconds after the last webhook of a case: when support stamped what it sent."""

WHOLE = [
    created(0, a="x", b="x").integrator("one"),
    report(4, a=DONE).url("https://one"),
    report(5, b=DONE),
    completed(6, a=DONE, b=DONE).status(DONE),
]
DELETED = [created(0), deleted(4)]
REOPENED = [created(0), completed(4, a=DONE).status(DONE), report(6, a="open")]

FROM_FLABS, FROM_SUPPORT = False, True
RESENT = {2: 1}


def logged(said: Said, position: int, *, imported: bool) -> LoggedEvent:
    return msgspec.structs.replace(said.logged(position), imported=imported)


def log(*told: tuple[Said, bool]) -> list[LoggedEvent]:
    return [
        logged(said, position, imported=imported)
        for position, (said, imported) in enumerate(told, 1)
    ]


def webhooks(events: Sequence[Said]) -> list[LoggedEvent]:
    return log(*((said, FROM_FLABS) for said in events))


def stamped(said: Said, at: int) -> Said:
    """Give an event another time, as support does with what it takes from its archive."""
    return dataclasses.replace(said, at=at)


def said_of(bill: Bill) -> object:
    """Return all of a bill but how many events it has, and when they were received."""
    plain = msgspec.to_builtins(bill)
    for name in ("events", "last_received_at", "position", "findings"):
        del plain["summary"][name]
    return plain


@pytest.mark.parametrize("events", [WHOLE, DELETED, REOPENED], ids=["whole", "deleted", "reopened"])
@pytest.mark.parametrize("at", [-LATER, 1, LATER], ids=["before", "between", "after"])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_twin_of_a_webhook_changes_nothing_but_the_count(
    events: list[Said], at: int, which: int
) -> None:
    once = fold("L", "B", webhooks(events))
    twin = logged(stamped(events[which], at).received(LATER), 9, imported=True)
    twice = fold("L", "B", [*webhooks(events), twin])
    assert said_of(twice) == said_of(once)
    assert twice.summary.events == once.summary.events + 1
    assert twice.summary.position == 9
    again = {"report_completed_again"} if events[which].event_type == "report.completed" else set()
    assert set(twice.summary.findings) - set(once.summary.findings) <= again


def test_all_of_a_bill_sent_again_changes_nothing_either() -> None:
    twins = [
        logged(stamped(said, LATER + place), 10 + place, imported=True)
        for place, said in enumerate(WHOLE)
    ]
    once, twice = fold("L", "B", webhooks(WHOLE)), fold("L", "B", [*webhooks(WHOLE), *twins])
    assert said_of(twice) == said_of(once)
    assert twice.summary.completed_at == moment(6)
    assert twice.missing_events == []


def test_a_report_sent_again_is_said_as_a_finding() -> None:
    found = fold("L", "B", log((report(4, a=DONE), FROM_FLABS), (report(9, a=DONE), FROM_SUPPORT)))
    assert found.summary.findings == ["report_completed_again"]
    assert [one.completed_at for one in found.reports] == [moment(4)]


def test_a_report_sent_again_does_not_stand_for_one_that_never_came() -> None:
    """Two tests and one report: another is missing, whatever support sends a second time."""
    both = report(4, a=DONE, b=DONE)
    events = log((created(0), FROM_FLABS), (both, FROM_FLABS), (stamped(both, LATER), FROM_SUPPORT))
    found = fold("L", "B", events, [LoggedDecision(9, requested(REPORTS))])
    assert [(one.event_type, one.count) for one in found.missing_events] == [
        ("report.completed", 1)
    ]
    assert [line.state for line in found.lines] == ["requested"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        rule("another time", report(4, a=DONE), report(9, a=DONE), RESENT),
        rule("an earlier time", report(4, a=DONE), report(1, a=DONE), RESENT),
        rule("another test", report(4, a=DONE), report(9, b=DONE), {}),
        rule("one more test", report(4, a=DONE), report(9, a=DONE, b=DONE), {}),
        rule("another status", report(4, a=DONE), report(9, a="open"), {}),
        rule("a status spelled otherwise", report(4, a=DONE), report(9, a="Completed"), {}),
        rule("another type", report(4, a=DONE), completed(9, a=DONE), {}),
        rule("another URL", report(4, a=DONE), report(9, a=DONE).url("https://two"), {}),
        rule("another id", report(4).integrator("one"), report(9).integrator("two"), {}),
        rule("another bill status", completed(4), completed(9).status(DONE), {}),
        rule(
            "the same tests in another order",
            report(4, a=DONE, b=DONE),
            report(9, b=DONE, a=DONE),
            RESENT,
        ),
    ],
)
def test_it_is_the_same_but_for_its_time(
    first: Said, second: Said, expected: dict[int, int]
) -> None:
    assert resent(log((first, FROM_FLABS), (second, FROM_SUPPORT))) == expected


def test_of_two_that_the_sender_sent_both_are_facts() -> None:
    """By the letter of the design: a report that was corrected, perhaps."""
    events = log((report(4, a=DONE), FROM_FLABS), (report(9, a=DONE), FROM_FLABS))
    assert resent(events) == {}
    found = fold("L", "B", events)
    assert found.summary.last_event_at == moment(9)
    completions = log((completed(4), FROM_FLABS), (completed(9), FROM_FLABS))
    assert fold("L", "B", completions).summary.completed_at == moment(9)


def test_what_support_sent_alone_is_a_fact() -> None:
    events = log((created(0), FROM_FLABS), (completed(9), FROM_SUPPORT))
    assert resent(events) == {}
    assert fold("L", "B", events).summary.completed_at == moment(9)


def test_a_webhook_that_comes_after_the_import_is_the_fact_all_the_same() -> None:
    events = log((completed(9), FROM_SUPPORT), (completed(4), FROM_FLABS))
    assert resent(events) == {1: 2}
    assert fold("L", "B", events).summary.completed_at == moment(4)


def test_each_import_of_a_webhook_s_twin_is_sent_again() -> None:
    events = log(
        (completed(4), FROM_FLABS), (completed(9), FROM_SUPPORT), (completed(12), FROM_SUPPORT)
    )
    assert resent(events) == {2: 1, 3: 1}
    assert fold("L", "B", events).summary.completed_at == moment(4)


def test_two_imports_without_a_webhook_are_two_facts() -> None:
    """By the letter of the rules: nobody can tell the second from what happened again."""
    events = log(
        (created(0), FROM_FLABS), (completed(9), FROM_SUPPORT), (completed(12), FROM_SUPPORT)
    )
    assert resent(events) == {}
    assert fold("L", "B", events).summary.completed_at == moment(12)


_said = st.builds(
    lambda make, at, tests: make(at, **tests),
    st.sampled_from([created, report, report, completed, deleted]),
    st.integers(0, 3),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from([DONE, "open"]), max_size=2),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(_said, min_size=1, max_size=5, unique_by=Said.body),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-50, 50)), max_size=4),
    st.randoms(use_true_random=False),
)
def test_twins_change_nothing_whenever_they_came(
    events: list[Said], twins: list[tuple[int, int]], chance: random.Random
) -> None:
    sent = [said.received(place) for place, said in enumerate(events)]
    told = [(said, FROM_FLABS) for said in sent]
    known = {said.body() for said in events}
    for place, at in twins:
        twin = stamped(events[place % len(events)], at)
        if twin.body() not in known:
            known.add(twin.body())
            told.append((twin.received(100 + len(told)), FROM_SUPPORT))
    found = fold("L", "B", log(*told))
    assert said_of(found) == said_of(fold("L", "B", webhooks(sent)))
    shuffled = log(*told)
    chance.shuffle(shuffled)
    assert fold("L", "B", shuffled) == found

"""What decisions make of missing events and of the lines that were asked, one case per sentence."""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import permutations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.model.bill import Bill, fold
from ledger.model.missing_events import MissingEvent, MissingState
from ledger.model.operator_events import BillDecision, EventRequested, LoggedDecision
from tests.support.decisions import (
    COMPLETED,
    CREATED,
    REPORTS,
    WHY,
    Subject,
    at,
    closed,
    report_of,
    requested,
    unwaived,
    waived,
)
from tests.support.events import DONE, Said, completed, created, deleted, report, rule

BUDGET = timedelta(seconds=400)

LOST = [completed(6, a=DONE)]
"""Neither bill.created nor the report of test a came."""

TWO_OF_THREE = [created(0), report(4, a=DONE, b=DONE, c=DONE), report(5, a=DONE)]
"""Of three reports at most two came."""

ONE_OF_THREE = TWO_OF_THREE[:2]

WAIVED = f"waived: {WHY}"

LineRow = tuple[int, str, int | None, str | None]
"""Request, state, position of the event that came, why it is closed."""


def bill(events: Sequence[Said], decisions: Sequence[BillDecision], *, first: int = 50) -> Bill:
    """Fold events from position 1 on and decisions from `first` on."""
    logged = [LoggedDecision(first + place, decision) for place, decision in enumerate(decisions)]
    return fold("L", "B", [event.logged(place) for place, event in enumerate(events, 1)], logged)


def missing(found: Bill, subject: Subject) -> MissingEvent:
    [one] = [
        one for one in found.missing_events if (one.event_type, one.test_id or None) == subject
    ]
    return one


def lines(found: Bill) -> list[LineRow]:
    return [
        (line.asked.request, line.state, line.received_position, line.reason)
        for line in found.lines
    ]


def test_without_a_decision_nothing_is_decided() -> None:
    found = bill(LOST, [])
    assert [(one.waived_at, one.requested_at) for one in found.missing_events] == [(None, None)] * 2
    assert found.lines == []


@pytest.mark.parametrize(
    ("decisions", "before", "after"),
    [
        rule("waived from then on", [waived(when=5)], "overdue", "waived"),
        rule("requested from then on", [requested(when=5)], "overdue", "requested"),
        rule("waived although requested", [requested(), waived(when=5)], "requested", "waived"),
        rule(
            "a line that was closed is waived",
            [requested(), closed(when=5)],
            "requested",
            "waived",
        ),
        rule(
            "the first waiver counts",
            [waived(when=5), waived(when=9)],
            "overdue",
            "waived",
        ),
        rule("of another test", [waived(report_of("a"), when=5)], "overdue", "overdue"),
        rule("of another type", [requested(COMPLETED, when=5)], "overdue", "overdue"),
        rule("a closing alone", [closed(when=5)], "overdue", "waived"),
    ],
)
def test_a_decision_holds_from_its_time_on(
    decisions: list[BillDecision], before: MissingState, after: MissingState
) -> None:
    one = missing(bill(LOST, decisions), CREATED)
    assert one.state(at(4.999), BUDGET) == before
    assert one.state(at(5), BUDGET) == after
    # What was not decided about is as it was.
    assert one.due_at(BUDGET) == one.evidence.received_at + BUDGET


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        rule("a waiver is taken back", [waived(), unwaived()], "overdue"),
        rule("all waivers are taken back", [waived(), waived(), unwaived()], "overdue"),
        rule("a later waiver holds", [waived(), unwaived(), waived()], "waived"),
        rule("nothing was there to take back", [unwaived()], "overdue"),
        rule("the order of the log decides", [unwaived(), waived()], "waived"),
        rule("of another test", [waived(), unwaived(report_of("a"))], "waived"),
        rule("what was asked for is asked for again", [requested(), waived(), unwaived()],
             "requested"),
        rule("a closed line", [requested(), closed(), unwaived()], "overdue"),
        rule(
            "asked for again after its line was closed",
            [requested(), closed(), unwaived(), requested(request=2)],
            "requested",
        ),
    ],
)  # fmt: skip
def test_a_waiver_can_be_taken_back(decisions: list[BillDecision], expected: MissingState) -> None:
    assert missing(bill(LOST, decisions), CREATED).state(at(9), BUDGET) == expected


def test_the_log_and_not_the_clock_orders_a_waiver_and_its_taking_back() -> None:
    found = bill(LOST, [waived(when=9), unwaived(when=1)])
    assert missing(found, CREATED).waived_at is None


def test_all_waivers_of_some_reports_are_taken_back_at_once() -> None:
    decisions = [waived(REPORTS), waived(REPORTS), unwaived(REPORTS)]
    assert missing(bill(ONE_OF_THREE, decisions), REPORTS).decided == 0


@pytest.mark.parametrize(
    ("events", "count", "decided"),
    [
        (TWO_OF_THREE, 1, 1),
        (TWO_OF_THREE, 3, 1),
        (ONE_OF_THREE, 1, 1),
        (ONE_OF_THREE, 2, 2),
    ],
)
@pytest.mark.parametrize("kind", [waived, requested, closed])
def test_a_decision_about_fewer_reports_does_not_cover_more(
    events: list[Said], count: int, decided: int, kind: Callable[..., BillDecision]
) -> None:
    one = missing(bill(events, [kind(REPORTS, count=count)]), REPORTS)
    assert one.decided == decided
    at_what_time = one.waived_at or one.requested_at
    assert at_what_time == (at(0) if decided == one.count else None)


@pytest.mark.parametrize("kind", [waived, requested])
def test_what_is_missing_more_since_is_new(kind: Callable[..., BillDecision]) -> None:
    more = report(9, d=DONE, e=DONE, f=DONE).received(10, position=60)
    one = missing(bill([*TWO_OF_THREE, more], [kind(REPORTS)]), REPORTS)
    assert (one.count, one.decided) == (3, 1)
    assert (one.waived_at, one.requested_at) == (None, None)


def test_what_was_decided_about_parts_covers_the_whole() -> None:
    one = missing(bill(ONE_OF_THREE, [waived(REPORTS, when=1), waived(REPORTS, when=9)]), REPORTS)
    assert (one.count, one.decided, one.waived_at) == (2, 2, at(9))


def test_what_is_asked_again_names_the_last_request_and_its_time() -> None:
    found = bill(LOST, [requested(when=1), requested(request=2, when=9, previous=1)])
    one = missing(found, CREATED)
    assert (one.request, one.requested_at) == (2, at(9))
    assert lines(found) == [
        (1, "closed", None, "asked for again in request 2"),
        (2, "requested", None, None),
    ]


@pytest.mark.parametrize(
    ("events", "decisions", "expected"),
    [
        rule("nothing came", LOST, [requested()], [(1, "requested", None, None)]),
        rule("it came", [*LOST, created(0)], [requested()], [(1, "received", 2, None)]),
        rule("it had come", [created(0), *LOST], [requested()], [(1, "received", 1, None)]),
        rule(
            "it came although the line was closed",
            [*LOST, created(0)],
            [requested(), closed()],
            [(1, "received", 2, None)],
        ),
        rule(
            "it came although it was waived",
            [*LOST, created(0)],
            [requested(), waived()],
            [(1, "received", 2, None)],
        ),
        rule(
            "waived after it was asked for",
            LOST,
            [requested(), waived()],
            [(1, "closed", None, WAIVED)],
        ),
        rule(
            "waived before it was asked for",
            LOST,
            [waived(), requested()],
            [(1, "closed", None, WAIVED)],
        ),
        rule(
            "another event is waived",
            LOST,
            [requested(), waived(report_of("a"))],
            [(1, "requested", None, None)],
        ),
        rule(
            "one of two reports is waived",
            ONE_OF_THREE,
            [requested(REPORTS, count=2), waived(REPORTS, count=1)],
            [(1, "requested", None, None)],
        ),
        rule(
            "the waiver is taken back",
            LOST,
            [requested(), waived(), unwaived()],
            [(1, "requested", None, None)],
        ),
        rule(
            "it was closed before it was waived",
            LOST,
            [requested(), closed(), waived()],
            [(1, "closed", None, WHY)],
        ),
        rule(
            "taking a waiver back does not open a closed line",
            LOST,
            [requested(), closed(), unwaived()],
            [(1, "closed", None, WHY)],
        ),
        rule("closed", LOST, [requested(), closed()], [(1, "closed", None, WHY)]),
        rule(
            "the first closing counts",
            LOST,
            [requested(), closed(reason="one"), closed(reason="two")],
            [(1, "closed", None, "one")],
        ),
        rule(
            "the closing of another request",
            LOST,
            [requested(), closed(request=2)],
            [(1, "requested", None, None)],
        ),
        rule(
            "it came after it was asked again, for both",
            [*LOST, created(0)],
            [requested(), requested(request=2, previous=1)],
            [(1, "received", 2, None), (2, "received", 2, None)],
        ),
        rule(
            "the bill was deleted",
            [*LOST, deleted(9)],
            [requested()],
            [(1, "closed", None, "the bill was deleted")],
        ),
        rule(
            "it came for a bill that was deleted",
            [*LOST, deleted(9), created(0)],
            [requested()],
            [(1, "received", 3, None)],
        ),
        rule(
            "bill completed is no longer missing since a report is open",
            [created(0, a="x"), report(4, a=DONE), report(5, b="open")],
            [requested(COMPLETED)],
            [(1, "closed", None, "later events show that it had not been sent yet")],
        ),
        rule(
            "a report that says the test open is not the one asked for",
            [*LOST, report(4, a="open")],
            [requested(report_of("a"))],
            [(1, "requested", None, None)],
        ),
        rule(
            "the report of another test is not",
            [*LOST, report(4, b=DONE)],
            [requested(report_of("a"))],
            [(1, "requested", None, None)],
        ),
        rule(
            "the report of that test is",
            [*LOST, report(4, b=DONE), report(5, a=DONE)],
            [requested(report_of("a"))],
            [(1, "received", 3, None)],
        ),
        rule(
            "one of two reports came",
            [*ONE_OF_THREE, report(7, b=DONE).received(8, position=60)],
            [requested(REPORTS, count=2)],
            [(1, "requested", None, None)],
        ),
        rule(
            "all that were missing came",
            [
                *ONE_OF_THREE,
                report(7, b=DONE).received(8, position=60),
                report(8, c=DONE).received(9, position=61),
            ],
            [requested(REPORTS, count=2)],
            [(1, "received", 61, None)],
        ),
        rule(
            "lines by request, then by subject",
            LOST,
            [requested(report_of("a"), 2, previous=1), requested(report_of("a")), requested()],
            [
                (1, "requested", None, None),
                (1, "closed", None, "asked for again in request 2"),
                (2, "requested", None, None),
            ],
        ),
        rule(
            "one line of a subject and request, the first",
            LOST,
            [requested(when=1), requested(when=2)],
            [(1, "requested", None, None)],
        ),
    ],
)  # fmt: skip
def test_what_came_of_a_line(
    events: list[Said], decisions: list[BillDecision], expected: list[LineRow]
) -> None:
    assert lines(bill(events, decisions)) == expected


def test_of_two_lines_of_one_name_the_first_stays_as_it_was_asked() -> None:
    """As of two logs that were merged."""
    found = bill(LOST, [requested(when=1), requested(when=2)])
    assert [line.asked.at for line in found.lines] == [at(1)]


@pytest.mark.parametrize("imported", [False, True])
def test_whoever_sent_it_settles_a_line(imported: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    first = LOST[0].logged(1)
    second = msgspec.structs.replace(created(0).logged(2), imported=imported)
    found = fold("L", "B", [first, second], [LoggedDecision(3, requested())])
    assert lines(found) == [(1, "received", 2, None)]


def test_a_decision_made_before_the_events_came_counts_all_the_same() -> None:
    """As in a log whose events were imported after its decisions."""
    early = bill([event.received(1, position=10) for event in LOST], [waived()], first=1)
    assert missing(early, CREATED).waived_at == at(0)
    assert early.summary.position == 10


def test_the_position_of_a_bill_is_that_of_its_last_decision() -> None:
    assert bill(LOST, [waived()]).summary.position == 50


DECISIONS = [
    LoggedDecision(11, requested(when=1)),
    LoggedDecision(12, closed(when=2, reason="one")),
    LoggedDecision(13, closed(when=3, reason="two")),
    LoggedDecision(14, waived(report_of("a"), when=4)),
    LoggedDecision(15, unwaived(report_of("a"), when=5)),
]


def test_the_order_in_which_decisions_are_given_does_not_matter() -> None:
    events = [LOST[0].logged(1)]
    [one, *others] = [fold("L", "B", events, given) for given in permutations(DECISIONS)]
    assert all(other == one for other in others)
    assert lines(one) == [(1, "closed", None, "one")]


_subjects = st.sampled_from([CREATED, COMPLETED, REPORTS, report_of("a"), report_of("b")])
_numbers = st.integers(1, 3)
_times = st.integers(0, 5)
_decisions = st.lists(
    st.builds(waived, _subjects, count=_numbers, when=_times)
    | st.builds(unwaived, _subjects, when=_times)
    | st.builds(requested, _subjects, _numbers, count=_numbers, when=_times)
    | st.builds(closed, _subjects, _numbers, count=_numbers, when=_times),
    max_size=8,
)
_statuses = st.sampled_from([DONE, "open", None])
_events = st.lists(
    st.builds(
        lambda make, second, tests, status: make(second, **tests).status(status),
        st.sampled_from([created, report, report, completed, deleted]),
        st.integers(0, 3),
        st.dictionaries(st.sampled_from("abc"), _statuses, max_size=3),
        _statuses,
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_events, _decisions, st.randoms(use_true_random=False))
def test_decisions_change_nothing_but_what_is_said_of_missing_events(
    events: list[Said], decisions: list[BillDecision], chance: random.Random
) -> None:
    """And each line of each request is there once, in a state that fits the events."""
    plain = bill(events, [])
    found = bill(events, decisions)
    assert found.reports == plain.reports
    assert [(one.subject, one.evidence, one.count) for one in found.missing_events] == [
        (one.subject, one.evidence, one.count) for one in plain.missing_events
    ]
    asked = {(one.request, one.subject) for one in decisions if isinstance(one, EventRequested)}
    assert [(line.asked.request, line.asked.subject) for line in found.lines] == sorted(asked)
    still = {one.subject for one in plain.missing_events}
    for line in found.lines:
        assert (line.received_position is not None) == (line.state == "received")
        assert (line.reason is not None) == (line.state == "closed")
        assert line.state != "requested" or line.asked.subject in still
    logged = [LoggedDecision(50 + place, one) for place, one in enumerate(decisions)]
    chance.shuffle(logged)
    again = [event.logged(place) for place, event in enumerate(events, 1)]
    assert fold("L", "B", again, logged) == found

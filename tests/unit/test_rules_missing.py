"""The rules of missing events, one case per sentence of docs/rules.md."""

from datetime import timedelta

import pytest

from ledger.model.missing_events import retry_budget
from tests.support.events import (
    DONE,
    Said,
    bill,
    completed,
    created,
    deleted,
    report,
    rule,
    time,
)

# A bill of which nothing is missing, but for the event that a case leaves out.
ALL = [created(0, a="x", b="x"), report(4, a=DONE), report(5, b=DONE), completed(6, a=DONE, b=DONE)]

Row = tuple[str, str | None, str, int, int]
"""Event type, test, certainty, count, and the position of the evidence."""


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        rule("nothing", ALL, []),
        rule("nothing of a bill just made", [created(0, a="x")], []),
        # bill.created
        rule(
            "bill created is proved by the event received first",
            [
                completed(6, a=DONE, b=DONE).received(30),
                report(5, b=DONE).received(20),
                report(4, a=DONE).received(25),
            ],
            [("bill.created", None, "certain", 1, 2)],
        ),
        rule(
            "of two received at once the first in the log",
            [
                completed(6, a=DONE).received(9, position=8),
                report(5, a=DONE).received(9, position=7),
            ],
            [("bill.created", None, "certain", 1, 7)],
        ),
        # report.completed of a known test
        rule(
            "report completed of each test that bill completed says and no report does",
            [created(0), report(4, a=DONE), completed(6, a=DONE, c=DONE, b=DONE)],
            [
                ("report.completed", "b", "certain", 1, 3),
                ("report.completed", "c", "certain", 1, 3),
            ],
        ),
        rule(
            "the first received of the bill completed that say so is the evidence",
            [
                created(0),
                completed(6, a=DONE).received(50),
                completed(7, a=DONE).received(40),
                completed(8, a="open").received(10),
            ],
            [("report.completed", "a", "certain", 1, 3)],
        ),
        rule(
            "an older bill completed proves it too",
            [created(0), completed(6, a=DONE), completed(7, a="open")],
            [("report.completed", "a", "certain", 1, 2)],
        ),
        rule("a test that bill completed says open", [created(0), completed(6, a="open")], []),
        rule(
            "a report that says the test open is not the one",
            [created(0), report(4, a="open"), completed(6, a=DONE)],
            [("report.completed", "a", "certain", 1, 3)],
        ),
        rule("bill created does not prove a report", [created(0, a=DONE)], []),
        # report.completed of an unknown test
        rule(
            "as many report completed as they say tests completed less the events that came",
            [created(0), report(4, a=DONE, b=DONE, c=DONE), completed(6)],
            [("report.completed", None, "possible", 2, 2)],
        ),
        rule(
            "the report completed received last is the evidence",
            [
                created(0),
                report(4, a=DONE).received(90),
                report(5, a=DONE, b=DONE, c=DONE).received(80),
                completed(6).received(99),
            ],
            [("report.completed", None, "possible", 1, 2)],
        ),
        rule(
            "certain and possible side by side",
            [created(0), report(4, a=DONE, b=DONE), completed(6, c=DONE)],
            [
                ("report.completed", None, "possible", 1, 2),
                ("report.completed", "c", "certain", 1, 3),
            ],
        ),
        # bill.completed, certain
        rule(
            "bill completed if the status of the bill is completed",
            [created(0), report(4, a=DONE).status(" Completed")],
            [("bill.completed", None, "certain", 1, 2)],
        ),
        rule(
            "the first received that says the status completed is the evidence",
            [
                created(0).status("open").received(5),
                report(4, a=DONE).status("completed").received(30),
                report(5, b=DONE).status("COMPLETED").received(20),
            ],
            [("bill.completed", None, "certain", 1, 3)],
        ),
        rule(
            "not if the newest status is another",
            [created(0).status("completed"), report(4, a=DONE).status("open")],
            [],
        ),
        rule(
            "an event without a status leaves it completed",
            [created(0).status("completed"), report(4, a=DONE)],
            [("bill.completed", None, "certain", 1, 1)],
        ),
        # bill.completed, possible
        rule(
            "bill completed perhaps if all reports of a bill whose tests are known are completed",
            [
                created(0, a="x", b="x"),
                report(5, b=DONE).received(9),
                report(4, a=DONE).received(8),
            ],
            [("bill.completed", None, "possible", 1, 2)],
        ),
        rule(
            "not while a report is open",
            [created(0, a="x", b="x"), report(4, a=DONE)],
            [],
        ),
        rule("not if bill created lists no test", [created(0), report(4, a=DONE)], []),
        rule("not without a report completed", [created(0, a=DONE)], []),
        rule(
            "the certain row stands for the possible one",
            [created(0, a="x"), report(4, a=DONE).status("completed")],
            [("bill.completed", None, "certain", 1, 2)],
        ),
        # deleted, sorted
        rule("none of a deleted bill", [report(4, a=DONE, b=DONE), deleted(9)], []),
        rule(
            "sorted by test and then by type",
            [completed(6, z=DONE, y=DONE).received(9), report(4, a=DONE, b=DONE).received(20)],
            [
                ("bill.created", None, "certain", 1, 1),
                ("report.completed", None, "possible", 1, 2),
                ("report.completed", "y", "certain", 1, 1),
                ("report.completed", "z", "certain", 1, 1),
            ],
        ),
    ],
)
def test_missing_events(events: list[Said], expected: list[Row]) -> None:
    found = [
        (each.event_type, each.test_id, each.certainty, each.count, each.evidence.position)
        for each in bill(*events).missing_events
    ]
    assert found == expected


def test_an_event_that_comes_late_is_missing_no_more() -> None:
    for absent in ALL:
        rest = [event for event in ALL if event is not absent]
        assert bill(*rest).missing_events != []
        assert bill(*rest, absent.received(9000)).missing_events == []


def test_evidence_tells_of_its_event() -> None:
    [missing] = bill(report(4, a=DONE).received(7.25, position=99)).missing_events
    evidence = missing.evidence
    assert (evidence.position, evidence.event_type) == (99, "report.completed")
    assert (evidence.event_time, evidence.received_at) == (time(4), time(7.25))


def test_the_retry_budget_is_three_retries_and_four_attempts() -> None:
    assert retry_budget(interval=120, count=3, timeout=10) == timedelta(seconds=400)


def test_due_when_the_retries_after_its_evidence_was_received_are_over() -> None:
    [missing] = bill(report(4, a=DONE).received(7.5)).missing_events
    budget = timedelta(seconds=400)
    assert missing.due_at(budget) == time(407.5)
    assert missing.state(time(407.499999), budget) == "awaiting_retry"
    assert missing.state(time(407.5), budget) == "overdue"

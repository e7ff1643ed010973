"""The rules of the fold, one case per sentence of the design's section "Rules".

Times are seconds after `START`. An event is received one second after it happened, and takes the
next position of the log, unless the case says otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from ledger.model.bill import Bill, fold
from ledger.model.event import BillEvent, read_event
from ledger.model.history import LoggedEvent
from ledger.model.identity import digest
from ledger.model.missing import retry_budget

START = 1_705_747_800
DONE = "completed"


@dataclass(frozen=True)
class Said:
    """An event as a case tells of it."""

    event_type: str
    at: int
    tests: list[dict[str, Any]] | None = None
    bill_data: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    received_at: float | None = None
    position: int | None = None

    def status(self, status: str | None) -> Said:
        return replace(self, bill_data={**self.bill_data, "status": status})

    def integrator(self, integrator_id: str | None) -> Said:
        return replace(self, data={**self.data, "integratorID": integrator_id})

    def url(self, url: str | None) -> Said:
        return replace(self, data={**self.data, "reportURL": url})

    def also(self, test: str, status: str | None) -> Said:
        return replace(self, tests=[*(self.tests or []), {"_id": test, "status": status}])

    def received(self, at: float, *, position: int | None = None) -> Said:
        return replace(self, received_at=at, position=position)

    def body(self) -> bytes:
        bill_data = dict(self.bill_data)
        if self.tests is not None:
            bill_data["testData"] = self.tests
        data = {"billID": "B", "billData": bill_data, **self.data}
        event_time = START + self.at
        return json.dumps(
            {"labID": "L", "eventType": self.event_type, "eventTime": event_time, "data": data}
        ).encode()

    def logged(self, position: int) -> LoggedEvent:
        event = read_event(self.body())
        assert isinstance(event, BillEvent)
        received_at = self.at + 1 if self.received_at is None else self.received_at
        return LoggedEvent(
            position=self.position or position,
            received_at=time(received_at),
            digest=digest(self.body()),
            event=event,
        )


def created(at: int, **tests: str | None) -> Said:
    return _said("bill.created", at, tests)


def report(at: int, **tests: str | None) -> Said:
    return _said("report.completed", at, tests)


def completed(at: int, **tests: str | None) -> Said:
    return _said("bill.completed", at, tests)


def deleted(at: int, **tests: str | None) -> Said:
    return _said("bill.deleted", at, tests)


def bill(*events: Said) -> Bill:
    return fold("L", "B", [event.logged(place) for place, event in enumerate(events, 1)])


def time(seconds: float) -> datetime:
    return datetime.fromtimestamp(START, UTC) + timedelta(seconds=seconds)


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else time(seconds)


def _said(event_type: str, at: int, tests: dict[str, str | None]) -> Said:
    listed = [{"_id": test, "status": status} for test, status in tests.items()]
    return Said(event_type, at, listed or None)


def rule(sentence: str, *values: object) -> Any:  # noqa: ANN401 -- pytest names no public type
    return pytest.param(*values, id=sentence.replace(" ", "-"))


# --- report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        rule("none before any event mentions a test", [created(0), completed(9)], []),
        rule("of each kind of event the tests count", [created(0, a="x")], ["a"]),
        rule(
            "one for each test that any event mentions sorted by test",
            [completed(9, a=DONE), report(5, d=DONE), deleted(7, b=DONE), created(0, c=None)],
            ["a", "b", "c", "d"],
        ),
    ],
)
def test_reports_of_a_bill(events: list[Said], expected: list[str]) -> None:
    assert [each.test_id for each in bill(*events).reports] == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        rule("as the only event says it", [created(0, a="sampled")], "sampled"),
        rule(
            "as the newest event that mentions the test says it",
            [report(5, a=DONE), completed(9, a="withdrawn"), created(0, a="sampled")],
            "withdrawn",
        ),
        rule(
            "an event that does not mention the test says nothing of it",
            [created(0, a="sampled"), report(5, b=DONE), completed(9)],
            "sampled",
        ),
        rule("null if the newest says none", [report(5, a=DONE), completed(9, a=None)], None),
        rule("as it was written", [created(0, a=" In Progress\n")], " In Progress\n"),
        rule("an empty word is a word", [report(5, a=DONE), completed(9, a="")], ""),
        rule("of a test listed twice the last", [report(5, a=DONE).also("a", "open")], "open"),
        rule("a deletion may be the newest", [report(5, a=DONE), deleted(9, a="void")], "void"),
    ],
)
def test_status_of_a_report(events: list[Said], expected: str | None) -> None:
    statuses = {each.test_id: each.status for each in bill(*events).reports}
    assert statuses["a"] == expected


def test_a_test_without_a_status_field_has_none() -> None:
    assert bill(Said("bill.created", 0, [{"_id": "a"}])).reports[0].status is None


@pytest.mark.parametrize(
    "status", ["completed", "COMPLETED", "Completed", " completed", "completed\r\n", "\tcomPleted "]
)
def test_completed_in_any_letter_case_and_with_white_space_around(status: str) -> None:
    assert bill(report(5, a=status)).reports[0].completed_at == time(5)


@pytest.mark.parametrize(
    "status", ["complete", "incompleted", "completed.", "com pleted", "done", "", " ", None]
)
def test_not_completed(status: str | None) -> None:
    made = bill(report(5, a=status))
    assert made.reports[0].completed_at is None
    assert made.summary.reports_completed == 0


@pytest.mark.parametrize(
    ("events", "completed_at", "evidence"),
    [
        rule("null while the status is not completed", [report(5, a="open")], None, None),
        rule(
            "null when the newest says it is not completed any more",
            [report(5, a=DONE), completed(9, a="open")],
            None,
            None,
        ),
        rule(
            "the least time among report completed that say it completed",
            [report(8, a=DONE), report(5, a=DONE), report(2, a="open"), completed(3, a=DONE)],
            5,
            "report.completed",
        ),
        rule(
            "a report completed counts though an earlier bill completed says it too",
            [completed(2, a=DONE), report(5, a=DONE)],
            5,
            "report.completed",
        ),
        rule(
            "if none the least among bill completed",
            [completed(9, a=DONE), completed(6, a=DONE), created(0, a=DONE), report(5, b=DONE)],
            6,
            "bill.completed",
        ),
        rule(
            "if none among bill created",
            [created(4, a=DONE), created(3, a=DONE), deleted(1, a=DONE)],
            3,
            "bill.created",
        ),
        rule(
            "if none among bill deleted",
            [created(0, a="open"), deleted(9, a=DONE), deleted(8, a=DONE)],
            8,
            "bill.deleted",
        ),
        rule(
            "the first completion counts of a report that was withdrawn and completed again",
            [report(5, a=DONE), report(6, a="open"), report(7, a=DONE)],
            5,
            "report.completed",
        ),
    ],
)
def test_completion_of_a_report(
    events: list[Said], completed_at: int | None, evidence: str | None
) -> None:
    a = next(each for each in bill(*events).reports if each.test_id == "a")
    assert (a.completed_at, a.evidence) == (moment(completed_at), evidence)


# --- bill -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "created_at", "completed_at", "deleted_at"),
    [
        rule("null if none", [report(5, a=DONE)], None, None, None),
        rule("created is the least", [created(3), created(1), created(2)], 1, None, None),
        rule("completed is the greatest", [completed(3), completed(9)], None, 9, None),
        rule("deleted is the least", [deleted(8), deleted(7), deleted(9)], None, None, 7),
        rule("each of its own", [created(0), completed(5), deleted(9)], 0, 5, 9),
    ],
)
def test_times_of_a_bill(
    events: list[Said], created_at: int | None, completed_at: int | None, deleted_at: int | None
) -> None:
    summary = bill(*events).summary
    assert summary.created_at == moment(created_at)
    assert summary.completed_at == moment(completed_at)
    assert summary.deleted_at == moment(deleted_at)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        rule("null if no event says it", [None, None], None),
        rule("from the newest event", ["old", "new"], "new"),
        rule("null says nothing", ["old", None], "old"),
        rule("empty says nothing", ["old", ""], "old"),
        rule("a blank is something", ["old", " "], " "),
    ],
)
def test_integrator_url_and_status_are_the_newest_that_say_something(
    values: list[str | None], expected: str | None
) -> None:
    events = [
        report(at, a=DONE).integrator(value).url(value).status(value)
        for at, value in enumerate(values)
    ]
    summary = bill(*reversed(events)).summary
    found = (summary.integrator_id, summary.report_url, summary.flabs_status)
    assert found == (expected, expected, expected)


def test_an_event_without_the_fields_leaves_integrator_url_and_status_as_they_were() -> None:
    summary = bill(created(0).integrator("i").url("u").status("s"), report(5, a=DONE)).summary
    assert (summary.integrator_id, summary.report_url, summary.flabs_status) == ("i", "u", "s")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        rule("open without a bill completed", [created(0, a=DONE), report(5, a=DONE)], "open"),
        rule(
            "open though its status word says completed", [created(0).status("completed")], "open"
        ),
        rule(
            "completed", [created(0, a="x"), report(5, a=DONE), completed(5, a=DONE)], "completed"
        ),
        rule("deleted", [created(0), deleted(9)], "deleted"),
        rule("deleted though completed later", [deleted(5), completed(9, a=DONE)], "deleted"),
        rule("deleted by an event alone", [deleted(5)], "deleted"),
        rule(
            "reopened by a newer event that says a report is not completed",
            [completed(5, a=DONE), report(6, b="open")],
            "reopened",
        ),
        rule(
            "reopened by a correction of a test",
            [completed(5, a=DONE), report(6, a="withdrawn")],
            "reopened",
        ),
        rule(
            "completed if the open report is told of before the completion",
            [created(0, a="open"), completed(5)],
            "completed",
        ),
        rule(
            "completed if the bill completed itself lists an open report",
            [completed(5, a="open")],
            "completed",
        ),
        rule(
            "completed if another event within the second ranks lower",
            [report(5, a="open"), completed(5, b=DONE)],
            "completed",
        ),
        rule(
            "completed if the event that says so is an older completion of one second",
            [completed(5, a="open"), completed(5, b=DONE, c=DONE)],
            "completed",
        ),
        rule(
            "completed again by the next bill completed",
            [completed(5, a=DONE), report(6, b="open"), completed(7, a=DONE, b=DONE)],
            "completed",
        ),
        rule(
            "completed if the next bill completed is newer than the open report",
            [completed(5, a=DONE), report(6, b="open"), completed(7, a=DONE)],
            "completed",
        ),
        rule(
            "completed again when the report is",
            [completed(5, a=DONE), report(6, b="open"), report(7, b=DONE)],
            "completed",
        ),
        rule(
            "reopened counts the newest word on a test only",
            [completed(5, a=DONE), report(6, a=DONE), report(4, a="open")],
            "completed",
        ),
        rule(
            "reopened by a late bill created",
            [completed(5, a=DONE), created(6, b="ordered")],
            "reopened",
        ),
    ],
)
def test_state(events: list[Said], expected: str) -> None:
    assert bill(*events).summary.state == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        rule("none", [created(0, a="x"), report(5, a=DONE), completed(6, a=DONE)], []),
        rule(
            "the newest bill completed itself lists a test that is not completed",
            [completed(5, a=DONE), completed(6, a=DONE, b="open"), report(4, b=DONE)],
            ["completed_with_open_reports"],
        ),
        rule(
            "an older bill completed may list one",
            [completed(5, a="open"), completed(6, a=DONE)],
            [],
        ),
        rule("another event may list one", [completed(5, a=DONE), created(6, b="open")], []),
        rule("an event after deletion", [deleted(5), created(6)], ["event_after_deletion"]),
        rule("an event within the second of the deletion", [deleted(5), created(5)], []),
        rule("a second deletion", [deleted(5), deleted(6)], []),
        rule(
            "an event between two deletions",
            [deleted(5), completed(6), deleted(7)],
            ["event_after_deletion"],
        ),
        rule(
            "two different integrator ids",
            [created(0).integrator("i"), completed(5).integrator("j")],
            ["integrator_changed"],
        ),
        rule(
            "no integrator is not another one",
            [
                created(0).integrator("i"),
                completed(5).integrator(""),
                completed(6).integrator(None),
            ],
            [],
        ),
        rule("300 seconds before its time", [created(1000).received(700)], []),
        rule(
            "more than 300 seconds before its time",
            [created(1000).received(699.999999)],
            ["event_from_future"],
        ),
        rule(
            "more report completed than tests they complete",
            [report(5, a=DONE), report(6, a=DONE)],
            ["report_completed_again"],
        ),
        rule("as many as tests", [report(5, a=DONE), report(6, a=DONE, b=DONE)], []),
        rule(
            "a report completed that says none completed",
            [report(5, a="open")],
            ["report_completed_again"],
        ),
        rule(
            "several are sorted",
            [
                report(5, a="open").integrator("i"),
                deleted(4).integrator("j"),
                completed(900, a="open").received(0),
            ],
            [
                "completed_with_open_reports",
                "event_after_deletion",
                "event_from_future",
                "integrator_changed",
                "report_completed_again",
            ],
        ),
    ],
)
def test_findings(events: list[Said], expected: list[str]) -> None:
    assert bill(*events).summary.findings == expected


def test_counts_and_receptions() -> None:
    made = bill(
        created(0, a="open", b="open").received(8, position=40),
        report(9, a=DONE).received(3, position=70),
        report(4, c=" COMPLETED", d=None).received(5, position=50),
    ).summary
    assert (made.lab_id, made.bill_id) == ("L", "B")
    assert (made.events, made.reports_total, made.reports_completed) == (3, 4, 2)
    assert (made.first_received_at, made.last_received_at) == (time(3), time(8))
    assert (made.last_event_at, made.position) == (time(9), 70)


# --- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        rule("by event time", completed(4, a=DONE), created(5, a="open")),
        rule("then report completed after bill created", created(5, a=DONE), report(5, a="open")),
        rule("then bill completed after report completed", report(5, a=DONE), completed(5, a="x")),
        rule("then bill deleted after bill completed", completed(5, a=DONE), deleted(5, a="open")),
        rule(
            "then who says more tests completed",
            report(5, a=DONE),
            report(5, a="x", b=DONE, c=DONE),
        ),
        rule(
            "a test listed twice is one completed test",
            report(5, a="open", b=DONE).also("b", DONE),
            report(5, a="late", b=DONE, c=DONE),
        ),
    ],
)
def test_what_is_newer(older: Said, newer: Said) -> None:
    [said] = [test["status"] for test in newer.tests or [] if test["_id"] == "a"]
    for events in permutations([older, newer]):
        a = next(each for each in bill(*events).reports if each.test_id == "a")
        assert a.status == said


def test_of_two_events_that_know_as_much_the_greater_digest_is_newer() -> None:
    one, other = report(5, a="x"), report(5, a="y")
    newest = max([(digest(one.body()), "x"), (digest(other.body()), "y")])[1]
    assert bill(one, other).reports[0].status == newest
    assert bill(other, one).reports[0].status == newest


def test_when_an_event_was_received_does_not_make_it_newer() -> None:
    made = bill(report(6, a="new").received(7), report(5, a="old").received(900))
    assert made.reports[0].status == "new"


# --- missing events ---------------------------------------------------------------------------

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

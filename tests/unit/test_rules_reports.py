"""The rules of reports, one case per sentence of docs/rules.md."""

import pytest

from tests.support.events import (
    DONE,
    Said,
    bill,
    completed,
    created,
    deleted,
    moment,
    report,
    rule,
    time,
)


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

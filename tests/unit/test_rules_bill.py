"""The rules of a bill, one case per sentence of docs/rules.md."""

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

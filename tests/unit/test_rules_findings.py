"""The rules of findings, one case per sentence of docs/rules.md."""

import pytest

from tests.support.events import DONE, Said, bill, completed, created, deleted, report, rule


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

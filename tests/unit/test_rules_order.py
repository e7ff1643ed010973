"""The rules of the order of events, one case per sentence of docs/rules.md."""

from itertools import permutations

import pytest

from ledger.model.digest import digest
from tests.support.events import (
    DONE,
    Said,
    bill,
    completed,
    created,
    deleted,
    report,
    rule,
)


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

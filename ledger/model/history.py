"""The events of one bill, in the order that decides what is newest.

Source: design, "Order".
"""

from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter

import msgspec
from msgspec import Struct

from ledger.model.event import RANK, BillEvent, is_completed


class LoggedEvent(Struct, frozen=True, gc=False):
    """A readable event of a bill with what the log adds to it.

    `position` is the log's, `received_at` the time (UTC) of the first delivery, `digest` 32 bytes.
    `imported` tells that it came in a file and not from the sender.
    """

    position: int
    received_at: datetime
    digest: bytes
    event: BillEvent
    imported: bool = False


class Fact(Struct, frozen=True, gc=False):
    """One event made ready for the fold.

    `order` is its place among the bill's events: `(event_time, rank, progress, digest)`. `at` is
    the event's time in Unix seconds. `tests` maps each test that the event mentions to the status
    it says; of a test mentioned twice the last mention counts. `completed` holds those of them that
    it says completed.
    """

    order: tuple[int, int, int, bytes]
    at: int
    type: str
    status: str | None
    integrator_id: str | None
    report_url: str | None
    tests: dict[str, str | None]
    completed: list[str]
    received_at: datetime
    position: int

    @property
    def moment(self) -> tuple[int, int]:
        """Return the part of the order that is the sender's: event time and rank."""
        return self.order[:2]


class History(Struct, frozen=True, gc=False):
    """The events of a bill, oldest first: all of them, and those of each type.

    `reported` are the tests that some `report.completed` says completed. `resent` are events that
    support sent again with another time: they are in none of the other lists.
    """

    facts: list[Fact]
    creations: list[Fact]
    reports: list[Fact]
    completions: list[Fact]
    deletions: list[Fact]
    reported: set[str]
    resent: list[Fact]


def history_of(events: list[LoggedEvent]) -> History:
    """Put events, given in any order, in theirs: `(event_time, rank, progress, digest)`.

    Flabs' times are whole seconds: of two events within one, the one that says more tests completed
    came later, and the digest decides what is left, so that any order of arrival gives this one.
    """
    facts = sorted([_fact(event) for event in events], key=attrgetter("order"))
    sent_again: list[Fact] = []
    if [event for event in events if event.imported]:
        originals = resent(events)
        sent_again = [fact for fact in facts if fact.position in originals]
        facts = [fact for fact in facts if fact.position not in originals]
    of_type: dict[str, list[Fact]] = {event_type: [] for event_type in RANK}
    for fact in facts:
        of_type[fact.type].append(fact)
    reports = of_type["report.completed"]
    return History(
        facts=facts,
        creations=of_type["bill.created"],
        reports=reports,
        completions=of_type["bill.completed"],
        deletions=of_type["bill.deleted"],
        reported=set[str]().union(*[fact.completed for fact in reports]),
        resent=sent_again,
    )


def resent(events: Iterable[LoggedEvent]) -> dict[int, int]:
    """Return the positions of events sent again with another time, each with the original's.

    Support may stamp what it sends from its archive with the time of sending. Such an event says
    nothing that the webhook had not said, and taken at its word it would make a bill of last week
    pending again. So an imported event that equals one of the sender's own but for its time is no
    second fact. Of two that the sender itself sent at two times, both are.
    """
    originals: dict[tuple[str, str], int] = {}
    imported = []
    for logged in sorted(events, key=attrgetter("position")):
        if logged.imported:
            imported.append(logged)
        else:
            originals.setdefault(_all_but_time(logged.event), logged.position)
    found = ((logged.position, originals.get(_all_but_time(logged.event))) for logged in imported)
    return {position: original for position, original in found if original is not None}


def by_reception(facts: list[Fact]) -> list[Fact]:
    """Return facts in the order in which their first deliveries came."""
    # Receivers on several machines may stamp the same instant; the log's order decides then.
    return sorted(facts, key=attrgetter("received_at", "position"))


def _fact(logged: LoggedEvent) -> Fact:
    event = logged.event
    data = event.data
    bill = data.bill_data
    tests: dict[str, str | None] = {}
    completed: list[str] = []
    if bill and bill.tests:
        tests = {test.test_id: test.status for test in bill.tests}
        completed = [
            test
            for test, status in tests.items()
            if status == "completed" or is_completed(status)  # without a call where it is plain
        ]
    return Fact(
        order=(event.event_time, RANK[event.event_type], len(completed), logged.digest),
        at=event.event_time,
        type=event.event_type,
        status=bill.status if bill else None,
        integrator_id=data.integrator_id,
        report_url=data.report_url,
        tests=tests,
        completed=completed,
        received_at=logged.received_at,
        position=logged.position,
    )


def _all_but_time(event: BillEvent) -> tuple[str, str]:
    """Return what tells an event from others but its time; the order of its tests says nothing."""
    bill = event.data.bill_data
    tests = sorted(map(repr, bill.tests)) if bill and bill.tests else []
    plain = msgspec.structs.replace(event.data, bill_data=None)
    return (event.event_type, f"{plain!r} {bill and bill.status!r} {tests}")

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

    `at` is the event's time in Unix seconds. `tests` maps each test that the event mentions to the
    status it says; of a test mentioned twice the last mention counts. `completed` holds those of
    them that it says completed.
    """

    at: int
    type: str
    status: str | None
    integrator_id: str | None
    report_url: str | None
    tests: dict[str, str | None]
    completed: frozenset[str]
    received_at: datetime
    position: int
    digest: bytes

    @property
    def moment(self) -> tuple[int, int]:
        """Return the part of the order that is the sender's: event time and rank."""
        return (self.at, RANK[self.type])


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
    reported: frozenset[str]
    resent: list[Fact]


def history_of(events: list[LoggedEvent]) -> History:
    """Put events, given in any order, in theirs: `(event_time, rank, progress, digest)`.

    Flabs' times are whole seconds: of two events within one, the one that says more tests completed
    came later, and the digest decides what is left, so that any order of arrival gives this one.
    """
    resent_positions = set(resent(events)) if any(event.imported for event in events) else ()
    all_facts = sorted(map(_fact, events), key=_order)
    facts = [fact for fact in all_facts if fact.position not in resent_positions]
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
        reported=frozenset[str]().union(*[fact.completed for fact in reports]),
        resent=[fact for fact in all_facts if fact.position in resent_positions],
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
    tests = {test.test_id: test.status for test in bill.tests} if bill and bill.tests else {}
    return Fact(
        at=event.event_time,
        type=event.event_type,
        status=bill.status if bill else None,
        integrator_id=data.integrator_id,
        report_url=data.report_url,
        tests=tests,
        completed=frozenset([test for test, status in tests.items() if is_completed(status)]),
        received_at=logged.received_at,
        position=logged.position,
        digest=logged.digest,
    )


def _all_but_time(event: BillEvent) -> tuple[str, str]:
    """Return what tells an event from others but its time; the order of its tests says nothing."""
    bill = event.data.bill_data
    tests = sorted(map(repr, bill.tests)) if bill and bill.tests else []
    plain = msgspec.structs.replace(event.data, bill_data=None)
    return (event.event_type, f"{plain!r} {bill and bill.status!r} {tests}")


def _order(fact: Fact) -> tuple[int, int, int, bytes]:
    return (fact.at, RANK[fact.type], len(fact.completed), fact.digest)

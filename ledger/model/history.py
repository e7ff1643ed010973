"""The events of one bill, in the order that decides what is newest.

Source: design, "Order".
"""

from datetime import datetime

from msgspec import Struct

from ledger.model.event import RANK, BillEvent, is_completed


class LoggedEvent(Struct, frozen=True, gc=False):
    """A readable event of a bill with what the log adds to it.

    `position` is the log's, `received_at` the time (UTC) of the first delivery, `digest` 32 bytes.
    """

    position: int
    received_at: datetime
    digest: bytes
    event: BillEvent


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


def in_order(events: list[LoggedEvent]) -> list[Fact]:
    """Return the events as facts, oldest first by `(event_time, rank, progress, digest)`.

    Flabs' times are whole seconds: of two events within one, the one that says more tests completed
    came later, and the digest decides what is left, so that any order of arrival gives this one.
    """
    return sorted(map(_fact, events), key=_order)


def by_reception(facts: list[Fact]) -> list[Fact]:
    """Return the facts in the order in which their first deliveries came."""
    # Receivers on several machines may stamp the same instant; the log's order decides then.
    return sorted(facts, key=lambda fact: (fact.received_at, fact.position))


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


def _order(fact: Fact) -> tuple[int, int, int, bytes]:
    return (fact.at, RANK[fact.type], len(fact.completed), fact.digest)

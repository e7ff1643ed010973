"""Finds missing events: those that the other events of a bill prove, or suggest, to be lost.

Source: docs/rules.md, "Missing events". The fold records all of them. Queries apply the current
time and the subscribed event types.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from ledger.event_types import EventType
from ledger.model.bill_history import BillHistory, LoggedEvent, by_reception
from ledger.model.event import is_completed

Certainty = Literal["certain", "possible"]
MissingState = Literal["awaiting_retry", "overdue", "requested", "waived"]


class Evidence(Struct, frozen=True):
    """The event that proves another to be missing. Times are UTC."""

    position: int
    event_type: str
    event_time: datetime
    received_at: datetime


class MissingEvent(Struct, frozen=True):
    """An event, or `count` events, that must have been sent and was not received.

    `test_id` is None if the event is about the whole bill or about an unknown test. `request` is
    the number of the last support request that asked for it, at `requested_at`. `waived_at` is when
    an operator waived it or closed the line that asked for it. `decided` is how many of the `count`
    events were requested or waived; the two times are set only when all of them were.
    """

    event_type: EventType
    test_id: str | None
    certainty: Certainty
    count: int
    evidence: Evidence
    decided: int = 0
    request: int | None = None
    requested_at: datetime | None = None
    waived_at: datetime | None = None

    @property
    def subject(self) -> tuple[str, str]:
        """What distinguishes it from the other missing events of its bill."""
        return (self.event_type, self.test_id or "")

    def due_at(self, retry_budget: timedelta) -> datetime:
        """Return the time after which the sender will not retry it any more."""
        return self.evidence.received_at + retry_budget

    def state(self, now: datetime, retry_budget: timedelta) -> MissingState:
        """Return its state at the time `now`."""
        if self.waived_at and self.waived_at <= now:
            return "waived"
        if self.requested_at and self.requested_at <= now:
            return "requested"
        return "awaiting_retry" if now < self.due_at(retry_budget) else "overdue"


def retry_budget(*, interval: int, count: int, timeout: int) -> timedelta:
    """Return the time from the start of the first attempt to the end of the last one.

    `interval` between attempts and `timeout` of an attempt are in seconds.
    """
    return timedelta(seconds=count * interval + (count + 1) * timeout)


def missing_events(history: BillHistory) -> list[MissingEvent]:
    """Return the missing events of a bill that is not deleted, sorted by test and event type."""
    found: list[MissingEvent] = []
    if not history.creations:
        found.append(_missing("bill.created", "certain", by_reception(history.events)[0]))
    if history.completions:
        found += _reports_of_known_tests(history)
    else:
        found += _bill_completed(history)
    count = len(history.reported) - len(history.reports)
    if history.reports and count > 0:  # some events were about several tests
        last = by_reception(history.reports)[-1]
        found.append(_missing("report.completed", "possible", last, count=count))
    return sorted(found, key=lambda missing: (missing.test_id or "", missing.event_type))


def _reports_of_known_tests(history: BillHistory) -> Iterable[MissingEvent]:
    proofs: dict[str, LoggedEvent] = {}
    for event in by_reception(history.completions):
        for test in event.completed - history.reported:
            proofs.setdefault(test, event)
    for test, event in proofs.items():
        yield _missing("report.completed", "certain", event, test_id=test)


def _bill_completed(history: BillHistory) -> Iterable[MissingEvent]:
    if is_completed(history.flabs_status):
        proofs = [event for event in history.events if is_completed(event.status)]
        yield _missing("bill.completed", "certain", by_reception(proofs)[0])
        return
    tests_known = any(event.tests for event in history.creations)
    if history.reports and tests_known and all(map(is_completed, history.statuses.values())):
        last = by_reception(history.reports)[-1]
        yield _missing("bill.completed", "possible", last)


def _missing(
    event_type: EventType,
    certainty: Certainty,
    evidence: LoggedEvent,
    *,
    test_id: str | None = None,
    count: int = 1,
) -> MissingEvent:
    return MissingEvent(
        event_type=event_type,
        test_id=test_id,
        certainty=certainty,
        count=count,
        evidence=Evidence(
            position=evidence.position,
            event_type=evidence.type,
            event_time=datetime.fromtimestamp(evidence.at, UTC),
            received_at=evidence.received_at,
        ),
    )

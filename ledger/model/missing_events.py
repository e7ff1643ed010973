"""Missing events: what the events of a bill prove, or make likely, to have been sent and lost.

Source: design, "Missing events". The fold records all of them; which event types are subscribed,
and what time it is, come in where somebody asks.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from ledger.model.bill_history import History, LoggedEvent, by_reception
from ledger.model.event import is_completed

Certainty = Literal["certain", "possible"]
MissingState = Literal["awaiting_retry", "overdue", "requested", "waived"]


class Evidence(Struct, frozen=True):
    """The event that shows another to be missing. Times are UTC."""

    position: int
    event_type: str
    event_time: datetime
    received_at: datetime


class MissingEvent(Struct, frozen=True):
    """One event, or `count` of them, of which another event tells and which has not come.

    `test_id` is None where the event is of the bill, or where it is not known of which test.
    `request` is the last support request that asked for it, at `requested_at`; `waived_at` is when
    an operator said that it will not be asked for, or closed what had been asked. `decided` says of
    how many of the `count` any of that was said; both times stand only where it was of all.
    """

    event_type: str
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
        """What tells it from the bill's other missing events."""
        return (self.event_type, self.test_id or "")

    def due_at(self, retry_budget: timedelta) -> datetime:
        """Return the time from which it will not come by itself any more."""
        return self.evidence.received_at + retry_budget

    def state(self, now: datetime, retry_budget: timedelta) -> MissingState:
        """Return what is to be said of it at the time `now`."""
        if self.waived_at and self.waived_at <= now:
            return "waived"
        if self.requested_at and self.requested_at <= now:
            return "requested"
        return "awaiting_retry" if now < self.due_at(retry_budget) else "overdue"


def retry_budget(*, interval: int, count: int, timeout: int) -> timedelta:
    """Return how long after the first attempt began the last one ends; arguments in seconds."""
    return timedelta(seconds=count * interval + (count + 1) * timeout)


def missing_events(history: History) -> list[MissingEvent]:
    """Return what is missing of a bill that is not deleted, sorted by test, then by event type."""
    found: list[MissingEvent] = []
    if not history.creations:
        found.append(_missing("bill.created", "certain", by_reception(history.events)[0]))
    if history.completions:
        found += _reports_of_known_tests(history)
    else:
        found += _bill_completed(history)
    count = len(history.reported) - len(history.reports)
    if history.reports and count > 0:  # reports came, but of some tests nobody knows in which
        last = by_reception(history.reports)[-1]
        found.append(_missing("report.completed", "possible", last, count=count))
    return sorted(found, key=lambda missing: (missing.test_id or "", missing.event_type))


def _reports_of_known_tests(history: History) -> Iterable[MissingEvent]:
    proofs: dict[str, LoggedEvent] = {}
    for event in by_reception(history.completions):
        for test in event.completed - history.reported:
            proofs.setdefault(test, event)
    for test, event in proofs.items():
        yield _missing("report.completed", "certain", event, test_id=test)


def _bill_completed(history: History) -> Iterable[MissingEvent]:
    if is_completed(history.flabs_status):
        proofs = [event for event in history.events if is_completed(event.status)]
        yield _missing("bill.completed", "certain", by_reception(proofs)[0])
        return
    tests_known = any(event.tests for event in history.creations)
    if history.reports and tests_known and all(map(is_completed, history.statuses.values())):
        last = by_reception(history.reports)[-1]
        yield _missing("bill.completed", "possible", last)


def _missing(
    event_type: str,
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

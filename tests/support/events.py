"""Events of one bill, as the cases of its rules tell of them.

Times are seconds after `START`. An event is received one second after it happened, and takes the
next position of the log, unless the case says otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.model.bill import Bill, fold
from ledger.model.bill_history import LoggedEvent, logged_event
from ledger.model.digest import digest
from ledger.model.event import BillEvent, read_event

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
        return logged_event(
            position=self.position or position,
            received_at=time(received_at),
            digest=digest(self.body()),
            event=event,
            imported=False,
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

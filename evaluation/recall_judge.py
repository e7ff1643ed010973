"""The rules of the design, read anew and without `ledger.model`: what the events of a bill prove.

Slow and obvious on purpose. It judges Ledger, so it shares nothing with it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

RANK = {"bill.created": 0, "report.completed": 1, "bill.completed": 2, "bill.deleted": 3}


class Fact(NamedTuple):
    """What is missing of which bill; `test_id` is empty where it is of no known test."""

    lab_id: str
    bill_id: str
    event_type: str
    test_id: str


class Missing(NamedTuple):
    """A missing event as the rules say it, with the reception of what proves it."""

    fact: Fact
    certainty: str
    number: int  # how many such events
    evidence_type: str
    evidence_at: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """One received event of a bill; `order` is its place in the log."""

    order: int
    received_at: datetime
    imported: bool
    type: str
    at: int
    data: dict[str, Any]
    digest: bytes

    @property
    def status(self) -> str | None:
        """What it says of the whole bill."""
        status: str | None = (self.data.get("billData") or {}).get("status")
        return status

    @property
    def tests(self) -> dict[str, str | None]:
        """What it says of each test."""
        listed = (self.data.get("billData") or {}).get("testData") or []
        return {test["_id"]: test.get("status") for test in listed}

    @property
    def done(self) -> set[str]:
        """The tests that it says completed."""
        return {test for test, status in self.tests.items() if is_done(status)}


def is_done(status: str | None) -> bool:
    """Tell whether a status word says completed."""
    return status is not None and status.strip().lower() == "completed"


def said(body: bytes, *, order: int, received_at: datetime, imported: bool) -> Said:
    """Read a received payload."""
    payload = json.loads(body)
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Said(
        order=order,
        received_at=received_at,
        imported=imported,
        type=payload["eventType"],
        at=payload["eventTime"],
        data=payload["data"],
        digest=hashlib.sha256(canonical.encode()).digest(),
    )


def judge(lab_id: str, bill_id: str, received: Iterable[Said]) -> list[Missing]:
    """Return what is missing of a bill of which these events were received, each once."""
    events = in_order(received)
    of = {kind: [event for event in events if event.type == kind] for kind in RANK}
    if of["bill.deleted"]:
        return []
    reports, completions = of["report.completed"], of["bill.completed"]
    reported = {test for event in reports for test in event.done}
    found: list[Missing] = []

    def miss(kind: str, test: str, certainty: str, proof: Said, count: int = 1) -> None:
        fact = Fact(lab_id, bill_id, kind, test)
        found.append(Missing(fact, certainty, count, proof.type, proof.at, proof.received_at))

    if not of["bill.created"]:
        miss("bill.created", "", "certain", _first(events))
    for test in {test for event in completions for test in event.done} - reported:
        proofs = [event for event in completions if test in event.done]
        miss("report.completed", test, "certain", _first(proofs))
    if reports and len(reports) < len(reported):
        count = len(reported) - len(reports)
        miss("report.completed", "", "possible", _last(reports), count)
    if not completions:
        newest = newest_of_each_test(events)
        if is_done(newest_status(events)):
            proofs = [event for event in events if is_done(event.status)]
            miss("bill.completed", "", "certain", _first(proofs))
        elif (
            reports
            and any(event.tests for event in of["bill.created"])
            and all(map(is_done, newest.values()))
        ):
            miss("bill.completed", "", "possible", _last(reports))
    return found


def in_order(received: Iterable[Said]) -> list[Said]:
    """Return events from the oldest to the newest.

    What support sent of an event that a webhook brought at another time is no event of its own.
    """
    every = list(received)
    sent = [(event.type, event.data) for event in every if not event.imported]
    events = [event for event in every if not (event.imported and (event.type, event.data) in sent)]
    return sorted(events, key=lambda one: (one.at, RANK[one.type], len(one.done), one.digest))


def newest_status(events: Sequence[Said]) -> str | None:
    """Return what the newest event that says anything of the bill says; they come in order."""
    return next((event.status for event in reversed(events) if event.status), None)


def newest_of_each_test(events: Sequence[Said]) -> dict[str, str | None]:
    """Return the newest status of each test; the events come in order."""
    newest: dict[str, str | None] = {}
    for event in events:
        newest |= event.tests
    return newest


def _first(events: Sequence[Said]) -> Said:
    return min(events, key=lambda event: (event.received_at, event.order))


def _last(events: Sequence[Said]) -> Said:
    return max(events, key=lambda event: (event.received_at, event.order))

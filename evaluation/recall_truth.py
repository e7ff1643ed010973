"""What really happened in a simulated month, out of its truth file."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from evaluation.recall_judge import Fact, is_done
from ledger.simulator import EventTruth, Outage, read_truth, read_truth_outages

Cause = Literal["dropped", "bill lost", "outage", "late into outage"]
Key = tuple[str, str]

INTERVAL, ATTEMPTS = 120, 4


@dataclass(slots=True, eq=False)
class Sent:
    """An event that a lab sent, and what became of it."""

    key: Key  # lab and bill
    type: str
    at: int
    body: bytes
    integrator_id: str | None
    done: frozenset[str]  # the tests that it says completed
    received_at: int | None  # by webhook; None: never
    cause: Cause | None  # why it never came


@dataclass(slots=True)
class Truth:
    """All events, bill by bill as they happened, and the outages."""

    bills: dict[Key, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    outages: list[Outage] = field(default_factory=list)
    lost_seconds: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Truth":
        """Read a truth file."""
        truth = cls(outages=read_truth_outages(path))
        for told in sorted(read_truth(path), key=lambda told: told.number):
            sent = _sent(told)
            truth.bills[sent.key].append(sent)
        truth.lost_seconds = list(_lost_seconds(truth.outages))
        return truth

    def events(self) -> Iterator[Sent]:
        """Yield all events."""
        return itertools.chain.from_iterable(self.bills.values())

    def lost(self) -> Iterator[Sent]:
        """Yield the events that no webhook brought."""
        return (event for event in self.events() if event.cause)

    def meant_by(self, fact: Fact) -> list[Sent]:
        """Return the events any of which would make a fact no longer missing, the oldest first."""
        own = [
            event
            for event in self.bills[fact.lab_id, fact.bill_id]
            if event.type == fact.event_type
        ]
        return [event for event in own if fact.test_id in event.done] if fact.test_id else own


def _sent(told: EventTruth) -> Sent:
    payload: dict[str, Any] = json.loads(bytes(told.payload))
    data = payload["data"]
    came = [each for each in told.deliveries if each.error is None]
    return Sent(
        key=(payload["labID"], data["billID"]),
        type=payload["eventType"],
        at=payload["eventTime"],
        body=bytes(told.payload),
        integrator_id=data.get("integratorID"),
        done=frozenset(
            test["_id"]
            for test in data["billData"].get("testData") or []
            if is_done(test["status"])
        ),
        received_at=_unix(came[0].sent_at) if came else None,
        cause=None if came else _cause(told),
    )


def _cause(told: EventTruth) -> Cause:
    if told.fate.dropped:
        return "bill lost" if told.fate.bill_lost is True else "dropped"
    return "outage" if len(told.deliveries) == ATTEMPTS else "late into outage"


def _lost_seconds(outages: list[Outage]) -> Iterator[int]:
    """Yield, by trying each second, those at which an event met an outage four times."""
    away = {second for each in outages for second in range(each.begin, each.end)}
    for second in sorted(away):
        if all(second + attempt * INTERVAL in away for attempt in range(ATTEMPTS)):
            yield second


def _unix(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())

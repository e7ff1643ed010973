"""Reads a row of the log: what it is, and whether it is folded with a bill."""

from msgspec import Struct

from ledger.eventlog.read import LogRow
from ledger.model.bill_history import LoggedEvent, logged_event
from ledger.model.event import BillEvent, Event, read_event
from ledger.model.operator_events import (
    AnyDecision,
    BillDecision,
    LoggedDecision,
    read_decision,
)
from ledger.model.unreadable import Unreadable

Read = LoggedEvent | LoggedDecision | Event | AnyDecision | Unreadable
"""What a row of the log is. The first two are folded with their bill."""


class BillEvents(Struct):
    """What is folded of a bill: its events and the decisions about it, in any order."""

    events: list[LoggedEvent]
    decisions: list[LoggedDecision]

    def add(self, read: Read) -> None:
        """Add what was read, if it is folded."""
        if isinstance(read, LoggedEvent):
            self.events.append(read)
        elif isinstance(read, LoggedDecision):
            self.decisions.append(read)


def read_row(row: LogRow) -> Read:
    """Read one row of the log; never raises."""
    position, received_at, digest, _, _, body, source = row
    if source == "operator":
        decision = read_decision(body)
        if isinstance(decision, BillDecision):
            return LoggedDecision(position, decision)
        return decision
    event = read_event(body)
    if isinstance(event, BillEvent):
        return logged_event(position, received_at, digest, event, imported=source == "import")
    return event

"""The event types that Ledger folds into bills: the only list of them."""

from typing import Literal, get_args

EventType = Literal["bill.created", "report.completed", "bill.completed", "bill.deleted"]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
"""In the order in which events of one second are folded."""

PROBE = "ledger.probe"
"""The type of the event with which `ledger flabs check` finds out whether the public address leads
to this log. It says nothing of a lab."""

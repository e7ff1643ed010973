"""What pages say of bills, missing events and findings, in words."""

from datetime import datetime, timedelta

from ledger.eventlog.delivery_hours import DeliveryOutcome
from ledger.model.bill import State
from ledger.model.coverage import FINDINGS as FINDINGS_OF_COVERAGE
from ledger.model.missing_events import MissingState
from ledger.operations.bill_details import FoldedBill
from ledger.operations.read_models import MissingEventItem
from ledger.operations.refused_deliveries.keep import Refusal
from ledger.operations.render.words import count, happened, how_known, lasting

STATES: dict[State, str] = {
    "open": "open",
    "completed": "completed",
    "reopened": "reopened",
    "deleted": "deleted",
}

MISSING_STATES: dict[MissingState, str] = {
    "overdue": "overdue",
    "awaiting_retry": "may still come",
    "requested": "asked for",
    "waived": "waived",
}

FINDINGS = {
    "completed_with_open_reports": "Completed with open reports",
    "event_after_deletion": "Something happened after the deletion",
    "event_from_future": "An event is from the future",
    "integrator_changed": "The integrator id changed",
    "report_completed_again": "A report was completed again",
}

OUTCOMES: dict[DeliveryOutcome, str] = {
    "recorded": "recorded",
    "duplicate": "repeats",
    "unreadable": "unreadable",
    "spooled": "kept on disk first",
    "refused": "refused (4xx)",
    "not_stored": "not stored (503)",
}

COVERAGE = FINDINGS_OF_COVERAGE

REFUSALS: dict[Refusal, str] = {
    "wrong": "the token was wrong",
    "missing": "there was no token",
    "foreign_lab": "the token is for other labs",
}

ATTEMPTS = ("1st attempt", "2nd attempt", "3rd attempt", "4th attempt")


def attempt(number: int | None) -> str:
    """Say which attempt of the sender brought an event."""
    if number is None:
        return "attempt unclear"
    return ATTEMPTS[number] if number < len(ATTEMPTS) else f"attempt {number + 1}"


def bill_sentence(bill: FoldedBill) -> str:
    """Say how a bill stands, in a sentence or two."""
    done = f"{bill.reports_completed:,} of {count(bill.reports_total, 'report')}"
    done += " is completed" if bill.reports_completed == 1 else " are completed"
    match bill.state:
        case "deleted":
            return "The bill was deleted. Nothing more is expected of it."
        case "completed":
            return f"The bill is completed: {done}."
        case "reopened":
            return f"The bill was completed and is open again, for a report changed: {done}."
        case _ if not bill.reports_total:
            return "The bill is open. No event has named a test of it yet."
        case _:
            return f"The bill is open: {done}."


def missing_sentence(bill: FoldedBill) -> str:
    """Say what is missing of a bill."""
    overdue = sum(one.count for one in bill.missing_events if one.state == "overdue")
    others = sum(one.count for one in bill.missing_events) - overdue
    if not overdue and not others:
        return "Every event that the others prove has arrived."
    parts = []
    if overdue:
        are = count(overdue, "event is", "events are")
        parts.append(f"{are} overdue and will not come without a request")
    if others:
        other = "other event is" if overdue else "event is"
        others_are = "other events are" if overdue else "events are"
        parts.append(f"{count(others, other, others_are)} awaited, asked for or waived")
    return f"{'; '.join(parts)}."


def missing_name(missing: MissingEventItem) -> str:
    """Name what is missing, without the test."""
    number = f"{missing.count:,} x " if missing.count != 1 else ""
    return f"{number}{missing.event_type}"


def proof(missing: MissingEventItem) -> str:
    """Say how it is known that an event is missing."""
    how = how_known(missing, str)
    when = happened(missing)
    return f"It happened {when}: {how}."


def due(missing: MissingEventItem, now: datetime) -> str:
    """Say how long an event may still come by itself, or since when it will not."""
    left = missing.due_at - now
    if left > timedelta():
        return f"may still come by itself for {lasting(left)}"
    return f"overdue for {lasting(-left)}"

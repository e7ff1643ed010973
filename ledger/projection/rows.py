"""The rows of the state tables: their columns, and how the results of the fold fill them."""

from typing import Any

from ledger.eventlog.read import Key
from ledger.model.bill import Bill
from ledger.model.missing_events import MissingEvent
from ledger.model.operator_events import (
    BillExpected,
    FlabsSubscribed,
    RequestClosed,
    RequestMade,
    SubscriptionSet,
    WindowClosed,
)
from ledger.model.request_lines import Line

COLUMNS = {
    "bill": {
        "lab_id": "text",
        "bill_id": "text",
        "integrator_id": "text",
        "state": "text",
        "flabs_status": "text",
        "created_at": "timestamptz",
        "completed_at": "timestamptz",
        "deleted_at": "timestamptz",
        "report_url": "text",
        "reports_total": "int4",
        "reports_completed": "int4",
        "findings": "text[]",
        "events": "int4",
        "first_received_at": "timestamptz",
        "last_received_at": "timestamptz",
        "last_event_at": "timestamptz",
        "position": "int8",
        "missing": "int4",
    },
    "report": {
        "lab_id": "text",
        "bill_id": "text",
        "test_id": "text",
        "status": "text",
        "completed_at": "timestamptz",
        "evidence": "text",
        "position": "int8",
    },
    "missing_event": {
        "lab_id": "text",
        "bill_id": "text",
        "test_id": "text",
        "event_type": "text",
        "certainty": "text",
        "count": "int4",
        "integrator_id": "text",
        "evidence_position": "int8",
        "evidence_event_type": "text",
        "evidence_event_time": "timestamptz",
        "evidence_received_at": "timestamptz",
        "decided": "int4",
        "request": "int4",
        "requested_at": "timestamptz",
        "waived_at": "timestamptz",
    },
    "request_line": {
        "lab_id": "text",
        "bill_id": "text",
        "request": "int4",
        "event_type": "text",
        "test_id": "text",
        "state": "text",
        "received_position": "int8",
        "reason": "text",
        "integrator_id": "text",
        "certainty": "text",
        "count": "int4",
        "evidence_position": "int8",
        "evidence_event_type": "text",
        "evidence_event_time": "timestamptz",
        "evidence_received_at": "timestamptz",
        "previous": "int4",
        "requested_at": "timestamptz",
        "requested_by": "text",
        "requested_by_key": "text",
    },
    "former_integrator": {"lab_id": "text", "bill_id": "text", "integrator_id": "text"},
    "unreadable_event": {
        "lab_id": "text",
        "bill_id": "text",
        "position": "int8",
        "reason": "text",
        "path": "text",
        "detail": "text",
    },
    "parked_bill": {"lab_id": "text", "bill_id": "text", "position": "int8", "error": "text"},
    "support_request": {
        "lab_id": "text",
        "position": "int8",
        "request": "int4",
        "made_at": "timestamptz",
        "made_by": "text",
        "made_by_key": "text",
        "note": "text",
    },
    "support_request_window": {
        "lab_id": "text",
        "position": "int8",
        "nth": "int4",
        "request": "int4",
        "begins_at": "timestamptz",
        "ends_at": "timestamptz",
        "labs": "text[]",
    },
    "support_request_closing": {
        "lab_id": "text",
        "position": "int8",
        "request": "int4",
        "closed_at": "timestamptz",
        "closed_by": "text",
        "reason": "text",
        "labs": "text[]",
    },
    "loss_window_closing": {
        "lab_id": "text",
        "position": "int8",
        "begins_at": "timestamptz",
        "ends_at": "timestamptz",
        "labs": "text[]",
        "closed_at": "timestamptz",
        "closed_by": "text",
        "reason": "text",
    },
    "subscription": {"lab_id": "text", "position": "int8", "events": "text[]"},
    "flabs_subscription": {
        "lab_id": "text",
        "position": "int8",
        "party": "text",
        "events": "text[]",
        "endpoint": "text",
        "in_path": "bool",
        "outcome": "text",
        "token_id": "text",
        "subscribed_at": "timestamptz",
    },
    "expectation": {
        "lab_id": "text",
        "position": "int8",
        "integrator_id": "text",
        "expected_by": "timestamptz",
    },
}
"""The state tables that hold folded rows: for each, its columns and their types, in row order."""

KEYS = {
    "bill": 2,
    "report": 3,
    "missing_event": 4,
    "request_line": 5,
    "former_integrator": 3,
    "unreadable_event": 3,
    "parked_bill": 2,
    "support_request": 2,
    "support_request_window": 3,
    "support_request_closing": 2,
    "loss_window_closing": 2,
    "subscription": 2,
    "flabs_subscription": 2,
    "expectation": 2,
}
"""By table: how many of its first columns identify a row."""

Row = tuple[Any, ...]
"""Values in the order of `COLUMNS`."""

Rows = dict[str, list[Row]]
"""By table."""


def no_rows() -> Rows:
    """Return an empty list for every table."""
    return {table: [] for table in COLUMNS}


def add_bill_rows(rows: Rows, bill: Bill) -> None:
    """Add the rows of a folded bill."""
    summary = bill.summary
    lab_id, bill_id, position = summary.lab_id, summary.bill_id, summary.position
    rows["bill"].append(
        (
            lab_id,
            bill_id,
            summary.integrator_id,
            summary.state,
            summary.flabs_status,
            summary.created_at,
            summary.completed_at,
            summary.deleted_at,
            summary.report_url,
            summary.reports_total,
            summary.reports_completed,
            summary.findings,
            summary.events,
            summary.first_received_at,
            summary.last_received_at,
            summary.last_event_at,
            position,
            len(bill.missing_events),
        )
    )
    rows["report"] += [
        (
            lab_id,
            bill_id,
            report.test_id,
            report.status,
            report.completed_at,
            report.evidence,
            position,
        )
        for report in bill.reports
    ]
    if bill.missing_events:
        rows["missing_event"] += [
            missing_event_row((lab_id, bill_id), summary.integrator_id, missing)
            for missing in bill.missing_events
        ]
    if bill.lines:
        rows["request_line"] += [_request_line((lab_id, bill_id), line) for line in bill.lines]
    if bill.former_integrators:
        rows["former_integrator"] += [
            (lab_id, bill_id, integrator) for integrator in bill.former_integrators
        ]


def missing_event_row(key: Key, integrator_id: str | None, missing: MissingEvent) -> Row:
    """Return the row of a missing event."""
    evidence = missing.evidence
    return (
        *key,
        missing.test_id or "",
        missing.event_type,
        missing.certainty,
        missing.count,
        integrator_id,
        evidence.position,
        evidence.event_type,
        evidence.event_time,
        evidence.received_at,
        missing.decided,
        missing.request,
        missing.requested_at,
        missing.waived_at,
    )


def _request_line(key: Key, line: Line) -> Row:
    asked = line.asked
    return (
        *key,
        asked.request,
        asked.event_type,
        asked.test_id or "",
        line.state,
        line.received_position,
        line.reason,
        asked.integrator_id,
        asked.certainty,
        asked.count,
        asked.evidence.position,
        asked.evidence.event_type,
        asked.evidence.event_time,
        asked.evidence.received_at,
        asked.previous,
        asked.at,
        asked.by,
        asked.by_key,
    )


GeneralDecision = (
    RequestMade | RequestClosed | WindowClosed | SubscriptionSet | FlabsSubscribed | BillExpected
)
"""A decision that concerns no single bill."""


def add_decision_rows(rows: Rows, lab_id: str, position: int, decision: GeneralDecision) -> None:
    """Add the rows of a decision that concerns no single bill; `lab_id` is the log's."""
    key = (lab_id, position)
    if isinstance(decision, RequestMade):
        rows["support_request"].append(
            (*key, decision.request, decision.at, decision.by, decision.by_key, decision.note)
        )
        rows["support_request_window"] += [
            (*key, nth, decision.request, window.begin, window.end, window.labs)
            for nth, window in enumerate(decision.windows, start=1)
        ]
    elif isinstance(decision, RequestClosed):
        rows["support_request_closing"].append(
            (
                *key,
                decision.request,
                decision.at,
                decision.by,
                decision.reason,
                decision.labs or [],
            )
        )
    elif isinstance(decision, WindowClosed):
        window = decision.window
        rows["loss_window_closing"].append(
            (*key, window.begin, window.end, window.labs, decision.at, decision.by, decision.reason)
        )
    elif isinstance(decision, SubscriptionSet):
        rows["subscription"].append((*key, decision.events))
    elif isinstance(decision, FlabsSubscribed):
        rows["flabs_subscription"].append(
            (
                *key,
                decision.party or "",
                decision.events,
                decision.endpoint,
                decision.in_path,
                decision.outcome,
                decision.token_id,
                decision.at,
            )
        )
    else:
        rows["expectation"].append((*key, decision.integrator_id, decision.expected_by))

"""Turns what the fold says into rows of the state tables.

The follower, the rebuild and the verification all take their rows from here.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from ledger.binary import int4, int8, timestamptz
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import Bill, fold
from ledger.model.event import BillEvent, Event, Unreadable, is_completed, read_event
from ledger.model.history import LoggedEvent

COLUMNS = {
    "bill": ("lab_id", "bill_id", "position", "state", "integrator_id", "summary", "reports"),
    "report": (
        "lab_id", "bill_id", "test_id", "position", "is_completed", "integrator_id", "report",
    ),
    "missing_event": (
        "lab_id", "bill_id", "event_type", "test_id", "certainty", "count", "integrator_id",
        "evidence_position", "evidence_event_type", "evidence_event_time", "evidence_received_at",
    ),
    "unreadable_event": ("lab_id", "bill_id", "position", "reason", "path", "detail"),
    "parked_bill": ("lab_id", "bill_id", "position", "error"),
}  # fmt: skip
"""The state tables that hold what was folded, each with its columns in the order of its rows."""

Row = tuple[bytes | None, ...]
"""Fields in PostgreSQL's binary form, in the order of `COLUMNS`."""

Rows = dict[str, list[Row]]
"""By table."""

_ENCODE = msgspec.json.Encoder().encode


def no_rows() -> Rows:
    """Return rows of every table, none yet."""
    return {table: [] for table in COLUMNS}


def add_bill(rows: Rows, key: Key, logged: list[LoggedEvent]) -> None:
    """Fold one bill and add its rows; a bill that cannot be folded is parked with its error."""
    try:
        made = _bill_rows(fold(*key, logged))
    except Exception as error:  # noqa: BLE001 -- whatever one bill does, the others go on
        add_parked(rows, key, logged, error)
        return
    for table, added in made.items():
        rows[table] += added


def add_parked(rows: Rows, key: Key, logged: list[LoggedEvent], error: Exception) -> None:
    """Add the row of a bill that cannot be folded or stored."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000].replace("\x00", "")
    position = max(event.position for event in logged)
    rows["parked_bill"].append(
        (key[0].encode(), key[1].encode(), int8(position), words.encode("utf-8", "replace"))
    )


def add_unreadable(rows: Rows, row: LogRow, unreadable: Unreadable) -> None:
    """Add the row of an event that cannot be read."""
    rows["unreadable_event"].append(
        (
            row.lab_id.encode(),
            row.bill_id.encode(),
            int8(row.position),
            unreadable.reason.encode(),
            unreadable.path.encode(),
            unreadable.detail.encode(),
        )
    )


def add_history(rows: Rows, key: Key, history: Iterable[LogRow]) -> int:
    """Fold a bill from all its rows of the log and add what it makes; return how many they were."""
    events = 0
    logged: list[LoggedEvent] = []
    for row in history:
        events += 1
        event = read_row(row)
        if isinstance(event, LoggedEvent):
            logged.append(event)
        elif isinstance(event, Unreadable):
            add_unreadable(rows, row, event)
    if logged:
        add_bill(rows, key, logged)
    return events


def read_row(row: LogRow) -> LoggedEvent | Event | Unreadable:
    """Read one row of the log: an event to fold, one to leave, or one that is unreadable."""
    event = read_event(row.body)
    if isinstance(event, BillEvent):
        return LoggedEvent(row.position, row.received_at, row.digest, event)
    return event


def encode(value: Any) -> bytes:  # noqa: ANN401 -- anything msgspec encodes
    """Encode as JSON; half a surrogate pair, which UTF-8 cannot hold, as the escape it came as."""
    try:
        return _ENCODE(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return json.dumps(plain, separators=(",", ":")).encode()


def _bill_rows(bill: Bill) -> Rows:
    summary = bill.summary
    lab_id, bill_id = summary.lab_id.encode(), summary.bill_id.encode()
    position = int8(summary.position)
    integrator_id = None if summary.integrator_id is None else summary.integrator_id.encode()
    return {
        "bill": [
            (
                lab_id,
                bill_id,
                position,
                summary.state.encode(),
                integrator_id,
                encode(summary),
                encode(bill.reports),
            )
        ],
        "report": [
            (
                lab_id,
                bill_id,
                report.test_id.encode(),
                position,
                b"\x01" if is_completed(report.status) else b"\x00",
                integrator_id,
                encode(report),
            )
            for report in bill.reports
        ],
        "missing_event": [
            (
                lab_id,
                bill_id,
                missing.event_type.encode(),
                (missing.test_id or "").encode(),
                missing.certainty.encode(),
                int4(missing.count),
                integrator_id,
                int8(missing.evidence.position),
                missing.evidence.event_type.encode(),
                timestamptz(missing.evidence.event_time),
                timestamptz(missing.evidence.received_at),
            )
            for missing in bill.missing_events
        ],
    }

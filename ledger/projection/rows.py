"""Turns what the fold says into rows of the state tables.

The follower, the rebuild and the verification all take their rows from here.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ledger.binary import int4, int8, packed_text_array, timestamptz
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import Bill, fold
from ledger.model.decision import (
    AnyDecision,
    BillDecision,
    BillExpected,
    LoggedDecision,
    RequestClosed,
    RequestMade,
    SubscriptionSet,
    WindowClosed,
    read_decision,
)
from ledger.model.event import BillEvent, Event, Unreadable, is_completed, read_event
from ledger.model.history import LoggedEvent
from ledger.projection.arrivals import Arrivals
from ledger.projection.expectations import Expected

COLUMNS = {
    "bill": ("lab_id", "bill_id", "position", "state", "integrator_id", "summary", "reports"),
    "report": (
        "lab_id", "bill_id", "test_id", "position", "is_completed", "integrator_id", "report",
    ),
    "missing_event": (
        "lab_id", "bill_id", "event_type", "test_id", "certainty", "count", "integrator_id",
        "evidence_position", "evidence_event_type", "evidence_event_time", "evidence_received_at",
        "decided", "request", "requested_at", "waived_at",
    ),
    "request_line": (
        "lab_id", "bill_id", "request", "event_type", "test_id", "state", "received_position",
        "line",
    ),
    "former_integrator": ("lab_id", "bill_id", "integrator_id"),
    "unreadable_event": ("lab_id", "bill_id", "position", "reason", "path", "detail"),
    "parked_bill": ("lab_id", "bill_id", "position", "error"),
    "desk_event": ("lab_id", "position", "kind", "request", "decision"),
    "subscription": ("lab_id", "position", "events"),
    "expectation": ("lab_id", "position", "integrator_id", "expected_by"),
}  # fmt: skip
"""The state tables that hold what was folded, each with its columns in the order of its rows."""

Row = tuple[bytes | None, ...]
"""Fields in PostgreSQL's binary form, in the order of `COLUMNS`."""

Rows = dict[str, list[Row]]
"""By table."""


class Made(Struct):
    """What was made of some events: rows, and what is added to rows that are there already."""

    rows: Rows
    arrivals: Arrivals
    expected: list[Expected]

    @classmethod
    def nothing(cls) -> "Made":
        """Return what is made of no events."""
        return cls(no_rows(), Arrivals.none(), [])


Read = LoggedEvent | LoggedDecision | Event | AnyDecision | Unreadable
"""What a row of the log is. The first two are folded with their bill."""


class BillEvents(Struct):
    """What is folded of a bill."""

    events: list[LoggedEvent]
    decisions: list[LoggedDecision]

    def add(self, read: Read) -> None:
        """Add what was read, if it is to be folded."""
        if isinstance(read, LoggedEvent):
            self.events.append(read)
        elif isinstance(read, LoggedDecision):
            self.decisions.append(read)


_ENCODE = msgspec.json.Encoder().encode


def no_rows() -> Rows:
    """Return rows of every table, none yet."""
    return {table: [] for table in COLUMNS}


def add_bill(rows: Rows, key: Key, history: BillEvents) -> None:
    """Fold one bill and add its rows; a bill that cannot be folded is parked with its error."""
    if not history.events:  # decisions alone, as an import of a part of a log may leave them
        return
    try:
        made = _bill_rows(fold(*key, history.events, history.decisions))
    except Exception as error:  # noqa: BLE001 -- whatever one bill does, the others go on
        add_parked(rows, key, history, error)
        return
    for table, added in made.items():
        rows[table] += added


def add_parked(rows: Rows, key: Key, history: BillEvents, error: Exception) -> None:
    """Add the row of a bill that cannot be folded or stored."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000].replace("\x00", "")
    position = max(event.position for event in history.events)
    rows["parked_bill"].append(
        (key[0].encode(), key[1].encode(), int8(position), words.encode("utf-8", "replace"))
    )
    # That it was seen is known all the same, whoever expects it.
    named = {event.event.data.integrator_id for event in history.events}
    rows["former_integrator"] += [
        (key[0].encode(), key[1].encode(), name.encode()) for name in sorted(filter(None, named))
    ]


def add_history(made: Made, key: Key, log_rows: Iterable[LogRow]) -> int:
    """Make all that the rows of one key in the log make; return how many they were."""
    count = 0
    history = BillEvents([], [])
    for row in log_rows:
        count += 1
        history.add(note(made, row))
    add_bill(made.rows, key, history)
    return count


def note(made: Made, row: LogRow) -> Read:
    """Read one row of the log, and make what it makes by itself, apart from its bill's fold."""
    read = read_row(row)
    if isinstance(read, Unreadable):
        made.rows["unreadable_event"].append(
            (
                row.lab_id.encode(),
                row.bill_id.encode(),
                int8(row.position),
                read.reason.encode(),
                read.path.encode(),
                read.detail.encode("utf-8", "replace"),
            )
        )
    elif isinstance(read, LoggedEvent):
        made.arrivals.add(row, read.event)
    elif isinstance(read, Event):
        made.arrivals.add(row, read)
    elif isinstance(read, BillExpected):
        made.expected.append(Expected(row.position, read))
        by = None if read.expected_by is None else timestamptz(read.expected_by)
        made.rows["expectation"].append(
            (row.lab_id.encode(), int8(row.position), read.integrator_id.encode(), by)
        )
    elif isinstance(read, SubscriptionSet):
        events = None
        if read.events is not None:
            events = packed_text_array(name.encode() for name in read.events)
        made.rows["subscription"].append((row.lab_id.encode(), int8(row.position), events))
    elif isinstance(read, (RequestMade, RequestClosed, WindowClosed)):
        request = None if isinstance(read, WindowClosed) else int4(read.request)
        kind = str(type(read).__struct_config__.tag).encode()
        made.rows["desk_event"].append(
            (row.lab_id.encode(), int8(row.position), kind, request, encode(read))
        )
    return read


def read_row(row: LogRow) -> Read:
    """Read one row of the log."""
    if row.source == "operator":
        decision = read_decision(row.body)
        if isinstance(decision, BillDecision):
            return LoggedDecision(row.position, decision)
        return decision
    event = read_event(row.body)
    if isinstance(event, BillEvent):
        return LoggedEvent(row.position, row.received_at, row.digest, event, row.source == "import")
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
                int4(missing.decided),
                None if missing.request is None else int4(missing.request),
                None if missing.requested_at is None else timestamptz(missing.requested_at),
                None if missing.waived_at is None else timestamptz(missing.waived_at),
            )
            for missing in bill.missing_events
        ],
        "request_line": [
            (
                lab_id,
                bill_id,
                int4(line.asked.request),
                line.asked.event_type.encode(),
                (line.asked.test_id or "").encode(),
                line.state.encode(),
                None if line.received_position is None else int8(line.received_position),
                encode(line),
            )
            for line in bill.lines
        ],
        "former_integrator": [
            (lab_id, bill_id, integrator.encode()) for integrator in bill.former_integrators
        ],
    }

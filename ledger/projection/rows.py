"""Turns what the fold says into rows of the state tables.

The follower, the rebuild and the verification all take their rows from here.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import Bill, fold
from ledger.model.bill_history import LoggedEvent, delay, logged_event
from ledger.model.event import BillEvent, Event, read_event
from ledger.model.missing_events import MissingEvent
from ledger.model.operator_events import (
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
from ledger.model.request_lines import Line
from ledger.model.unreadable import Unreadable
from ledger.postgres.binary import (
    NULL,
    bool_array_field,
    field,
    int4_field,
    int8_field,
    text_array_field,
    text_field,
    timestamptz_field,
)
from ledger.projection.delivery_stats import Arrival, DeliveryStats
from ledger.projection.expected_bills import Expected
from ledger.projection.stored import stored_report, stored_summary

COLUMNS = {
    "bill": (
        "lab_id", "bill_id", "position", "missing", "state", "integrator_id", "summary", "reports",
        "test_ids", "completed",
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

Row = tuple[bytes, ...]
"""Fields of a binary COPY, in the order of `COLUMNS`."""

Rows = dict[str, list[Row]]
"""By table."""


class Made(Struct):
    """What was made of some events: rows, and what is added to rows that are there already."""

    rows: Rows
    delivery_stats: DeliveryStats
    expected: list[Expected]

    @classmethod
    def nothing(cls) -> "Made":
        """Return what is made of no events."""
        return cls(no_rows(), DeliveryStats.none(), [])


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
        (
            text_field(key[0]),
            text_field(key[1]),
            int8_field(position),
            field(words.encode("utf-8", "replace")),
        )
    )
    # That it was seen is known all the same, whoever expects it.
    named = {event.integrator_id for event in history.events}
    rows["former_integrator"] += [
        (text_field(key[0]), text_field(key[1]), text_field(name))
        for name in sorted(filter(None, named))
    ]


def add_history(made: Made, key: Key, log_rows: Iterable[LogRow]) -> int:
    """Make all that the rows of one key in the log make; return how many they were."""
    count = 0
    history = BillEvents([], [])
    for row in log_rows:
        count += 1
        read = read_row(row)
        if isinstance(read, LoggedEvent):  # nearly all are
            history.events.append(read)
        else:
            note(made, row, read)
            history.add(read)
    made.delivery_stats.add(key[0], history.events)
    add_bill(made.rows, key, history)
    return count


def note(made: Made, row: LogRow, read: Read) -> None:
    """Make what a row of the log, as it was read, makes by itself, apart from its bill."""
    position = int8_field(row.position)
    if isinstance(read, Unreadable):
        made.rows["unreadable_event"].append(
            (
                text_field(row.lab_id),
                text_field(row.bill_id),
                position,
                text_field(read.reason),
                text_field(read.path),
                field(read.detail.encode("utf-8", "replace")),
            )
        )
    elif isinstance(read, Event):
        late = delay(row.received_at, read.event_time)
        made.delivery_stats.add(
            row.lab_id, [Arrival(row.received_at, row.source == "import", late)]
        )
    elif isinstance(read, BillExpected):
        made.expected.append(Expected(row.position, read))
        by = NULL if read.expected_by is None else timestamptz_field(read.expected_by)
        made.rows["expectation"].append(
            (text_field(row.lab_id), position, text_field(read.integrator_id), by)
        )
    elif isinstance(read, SubscriptionSet):
        events = NULL if read.events is None else text_array_field(read.events)
        made.rows["subscription"].append((text_field(row.lab_id), position, events))
    elif isinstance(read, (RequestMade, RequestClosed, WindowClosed)):
        request = NULL if isinstance(read, WindowClosed) else int4_field(read.request)
        kind = text_field(str(type(read).__struct_config__.tag))
        made.rows["desk_event"].append(
            (text_field(row.lab_id), position, kind, request, field(encode(read)))
        )


def read_row(row: LogRow) -> Read:
    """Read one row of the log."""
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


def encode(value: Any) -> bytes:  # noqa: ANN401 -- anything msgspec encodes
    """Encode as JSON; half a surrogate pair, which UTF-8 cannot hold, as the escape it came as."""
    try:
        return _ENCODE(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return json.dumps(plain, separators=(",", ":")).encode()


def _bill_rows(bill: Bill) -> Rows:
    summary = bill.summary
    key = (text_field(summary.lab_id), text_field(summary.bill_id))
    integrator_id = NULL if summary.integrator_id is None else text_field(summary.integrator_id)
    rows: Rows = {
        "bill": [
            (
                *key,
                int8_field(summary.position),
                int4_field(len(bill.missing_events)),
                text_field(summary.state),
                integrator_id,
                field(encode(stored_summary(summary))),
                field(encode([stored_report(report) for report in bill.reports])),
                text_array_field([report.test_id for report in bill.reports]),
                bool_array_field([report.evidence is not None for report in bill.reports]),
            )
        ]
    }
    if bill.missing_events:
        rows["missing_event"] = [
            (*key, *_missing_fields(missing, integrator_id)) for missing in bill.missing_events
        ]
    if bill.lines:
        rows["request_line"] = [(*key, *_line_fields(line)) for line in bill.lines]
    if bill.former_integrators:
        rows["former_integrator"] = [
            (*key, text_field(integrator)) for integrator in bill.former_integrators
        ]
    return rows


def _missing_fields(missing: MissingEvent, integrator_id: bytes) -> Row:
    return (
        text_field(missing.event_type),
        text_field(missing.test_id or ""),
        text_field(missing.certainty),
        int4_field(missing.count),
        integrator_id,
        int8_field(missing.evidence.position),
        text_field(missing.evidence.event_type),
        timestamptz_field(missing.evidence.event_time),
        timestamptz_field(missing.evidence.received_at),
        int4_field(missing.decided),
        NULL if missing.request is None else int4_field(missing.request),
        _time_or_null(missing.requested_at),
        _time_or_null(missing.waived_at),
    )


def _line_fields(line: Line) -> Row:
    return (
        int4_field(line.asked.request),
        text_field(line.asked.event_type),
        text_field(line.asked.test_id or ""),
        text_field(line.state),
        NULL if line.received_position is None else int8_field(line.received_position),
        field(encode(line)),
    )


def _time_or_null(moment: datetime | None) -> bytes:
    return NULL if moment is None else timestamptz_field(moment)

"""The CSV formats (RFC 4180): a single table whose first column says what each row is.

That way nobody takes the rows of missing events for everything that is known to be lost.
"""

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import BinaryIO

from ledger.operations.read_models import (
    LossWindow,
    MissingEventItem,
    MissingEvents,
    ReconciliationReport,
    RequestLine,
    SupportRequest,
)
from ledger.operations.render.words import labs_of
from ledger.operations.spreadsheet_cells import neutral

REPORT_COLUMNS = (
    "kind", "lab_id", "bill_id", "integrator_id", "event_type", "test_id", "certainty", "count",
    "state", "due_at", "evidence_position", "evidence_event_type", "evidence_event_time",
    "evidence_received_at", "request", "from", "to", "expected_by",
)  # fmt: skip
REQUEST_COLUMNS = (
    "kind", "request", "made_at", "line", "lab_id", "bill_id", "integrator_id", "event_type",
    "test_id", "certainty", "count", "state", "evidence_position", "evidence_event_type",
    "evidence_event_time", "evidence_received_at", "previous", "received_position", "reason",
    "from", "to",
)  # fmt: skip

Value = str | int | datetime | None


def write_report_rows(
    report: ReconciliationReport, missing_events: MissingEvents, to: BinaryIO
) -> None:
    """Write a row per missing event, per loss window and lab, per unseen bill, per finding."""
    _write(REPORT_COLUMNS, _report_rows(report, missing_events), to)


def write_request_rows(request: SupportRequest, to: BinaryIO) -> None:
    """Write a row per line, and per loss window and lab."""
    _write(REQUEST_COLUMNS, _request_rows(request), to)


def _report_rows(
    report: ReconciliationReport, missing_events: MissingEvents
) -> Iterator[Mapping[str, Value]]:
    for item in missing_events:
        yield {**_missing_event(item), "due_at": item.due_at, "request": item.request}
    yield from _loss_windows(report.loss_windows)
    for bill in report.unseen_bills:
        yield {
            "kind": "unseen_bill",
            "lab_id": bill.lab_id,
            "integrator_id": bill.integrator_id,
            "expected_by": bill.expected_by,
        }
    for found in report.coverage or ():
        yield {
            "kind": "coverage",
            "lab_id": found.lab_id,
            "event_type": ", ".join(found.events) or None,
            "state": found.finding,
        }


def _request_rows(request: SupportRequest) -> Iterator[Mapping[str, Value]]:
    made: dict[str, Value] = {"request": request.number, "made_at": request.made_at}
    for number, line in enumerate(request.lines, 1):
        yield {
            **made,
            **_missing_event(line),
            "line": number,
            "previous": line.previous,
            "received_position": line.received_position,
            "reason": line.reason,
        }
    for row in _loss_windows(request.loss_windows):
        yield {**made, **row}


def _missing_event(missing: MissingEventItem | RequestLine) -> dict[str, Value]:
    return {
        "kind": "missing_event",
        "lab_id": missing.lab_id,
        "bill_id": missing.bill_id,
        "integrator_id": missing.integrator_id,
        "event_type": missing.event_type,
        "test_id": missing.test_id,
        "certainty": missing.certainty,
        "count": missing.count,
        "state": missing.state,
        "evidence_position": missing.evidence.position,
        "evidence_event_type": missing.evidence.event_type,
        "evidence_event_time": missing.evidence.event_time,
        "evidence_received_at": missing.evidence.received_at,
    }


def _loss_windows(windows: Iterable[LossWindow]) -> Iterator[dict[str, Value]]:
    for window in windows:
        for lab_id in labs_of(window):
            yield {
                "kind": "loss_window",
                "lab_id": lab_id,
                "state": window.state,
                "from": window.begin,
                "to": window.end,
            }


def _write(columns: Iterable[str], rows: Iterable[Mapping[str, Value]], to: BinaryIO) -> None:
    names = tuple(columns)
    writer = csv.writer(codecs.getwriter("utf-8")(to))
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Value) -> str:
    """Return the text of a cell, which no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return neutral(str(value))

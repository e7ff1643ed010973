"""How a bill lies in its row of state.bill: short, so that as many rows as can be fit into memory.

JSON where nothing is searched for: a status may hold NUL or half a surrogate pair, which
PostgreSQL's text cannot. What other columns say is not said again, but for the tests: an array of
strings beside would take more to read than they take here.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from msgspec.json import Decoder

from ledger.model.bill import BillSummary, Report, State
from ledger.model.event import RANK

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EVIDENCE: dict[int | None, str | None] = {None: None, **{RANK[kind]: kind for kind in RANK}}
_COMPLETED = "completed"

T = TypeVar("T")


class BillColumns(NamedTuple):
    """The columns that make a bill's summary."""

    lab_id: str
    bill_id: str
    state: State
    integrator_id: str | None
    position: int
    summary: bytes


class StoredSummary(Struct, frozen=True, array_like=True):
    """The column `summary` as it is read. Times of events stand there in Unix seconds.

    Those of receptions are in microseconds since 1970.
    """

    flabs_status: str | None
    report_url: str | None
    created_at: datetime | None
    completed_at: datetime | None
    deleted_at: datetime | None
    last_event_at: datetime
    first_received_at: int
    last_received_at: int
    events: int
    reports_total: int
    reports_completed: int
    findings: list[str]


class StoredReport(Struct, frozen=True, array_like=True, gc=False):
    """An entry of the column `reports` as it is read. `completed_at` stands there in Unix seconds.

    `rank` is that of the event type that is the evidence. A status that is the plain word is left
    out.
    """

    test_id: str
    completed_at: datetime | None
    rank: int | None
    status: str | None = _COMPLETED


# Version 3 of the fold stored objects, with all that is said. Read until they are made anew.
_Said = dict[str, Any]
# Not strict: times are made of numbers.
_SUMMARY: Decoder[StoredSummary | _Said] = Decoder(StoredSummary | _Said, strict=False)
_REPORT: Decoder[StoredReport | _Said] = Decoder(StoredReport | _Said, strict=False)
_REPORTS: Decoder[list[StoredReport | _Said]] = Decoder(list[StoredReport | _Said], strict=False)


def stored_summary(summary: BillSummary) -> tuple[Any, ...]:
    """Return what is stored of a summary, to be read as `StoredSummary`."""
    return (
        summary.flabs_status,
        summary.report_url,
        _seconds(summary.created_at),
        _seconds(summary.completed_at),
        _seconds(summary.deleted_at),
        int(summary.last_event_at.timestamp()),
        (summary.first_received_at - _EPOCH) // _MICROSECOND,
        (summary.last_received_at - _EPOCH) // _MICROSECOND,
        summary.events,
        summary.reports_total,
        summary.reports_completed,
        summary.findings,
    )


def stored_report(report: Report) -> tuple[Any, ...]:
    """Return what is stored of a report, to be read as `StoredReport`."""
    rank = None if report.evidence is None else RANK[report.evidence]
    entry = (report.test_id, _seconds(report.completed_at), rank)
    return entry if report.status == _COMPLETED else (*entry, report.status)


def read_summary(row: BillColumns) -> BillSummary:
    """Make a summary of what is stored of it."""
    found = _decode(_SUMMARY, row.summary)
    if isinstance(found, dict):
        return msgspec.convert(found, BillSummary)
    return BillSummary(
        lab_id=row.lab_id,
        bill_id=row.bill_id,
        integrator_id=row.integrator_id,
        state=row.state,
        flabs_status=found.flabs_status,
        created_at=found.created_at,
        completed_at=found.completed_at,
        deleted_at=found.deleted_at,
        report_url=found.report_url,
        reports_total=found.reports_total,
        reports_completed=found.reports_completed,
        findings=found.findings,
        events=found.events,
        first_received_at=_EPOCH + found.first_received_at * _MICROSECOND,
        last_received_at=_EPOCH + found.last_received_at * _MICROSECOND,
        last_event_at=found.last_event_at,
        position=row.position,
    )


def read_reports(stored: bytes) -> list[Report]:
    """Make a bill's reports of the column `reports`."""
    return [_report(entry) for entry in _decode(_REPORTS, stored)]


def read_report(stored: bytes) -> Report:
    """Make one report of its entry in that column."""
    return _report(_decode(_REPORT, stored))


def _report(entry: StoredReport | _Said) -> Report:
    if isinstance(entry, dict):
        return msgspec.convert(entry, Report)
    return Report(entry.test_id, entry.status, entry.completed_at, _EVIDENCE[entry.rank])


def _decode(decoder: Decoder[T], stored: bytes) -> T:
    try:
        return decoder.decode(stored)
    except msgspec.DecodeError:  # half a surrogate pair
        return msgspec.convert(json.loads(stored), decoder.type, strict=False)


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())

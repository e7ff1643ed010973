"""The spreadsheet formats (XLSX): a sheet for each list, to filter and sort."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import xlsxwriter  # type: ignore[import-untyped]  # it comes without annotations

from ledger.operations.read_models import (
    LossWindow,
    MissingEventItem,
    MissingEvents,
    NearLoss,
    ReconciliationReport,
    RequestLine,
    SupportRequest,
)
from ledger.operations.render.words import labs_of, made_by, registration, shown
from ledger.operations.spreadsheet_cells import is_formula

MAX_ROWS = 1_048_576
"""The most rows a sheet holds, header included. A longer list continues in another sheet."""

MAX_UNITS = 32_767
"""The longest text of a cell, in UTF-16 code units."""

Value = str | int | float | datetime | date | None
Column = tuple[str, int]
"""A header and how many characters wide the column is."""

_MISSING_EVENTS: tuple[Column, ...] = (
    ("Lab", 20),
    ("Bill", 20),
    ("Integrator", 24),
    ("Event", 18),
    ("Test", 20),
    ("Certainty", 10),
    ("How many", 10),
    ("State", 10),
)
_EVIDENCE: tuple[Column, ...] = (
    ("Evidence: position", 18),
    ("Evidence: event", 18),
    ("Evidence: event time (UTC)", 26),
    ("Evidence: received (UTC)", 24),
)
_LOSS_WINDOWS: tuple[Column, ...] = (
    ("Lab", 20),
    ("From (UTC)", 20),
    ("To (UTC)", 20),
    ("State", 10),
)


def write_report_spreadsheet(
    report: ReconciliationReport, missing_events: MissingEvents, to: BinaryIO
) -> None:
    """Write a report: its missing events, labs, loss windows, unseen bills, near losses."""
    with _book(report.as_of, to) as book:
        book.add(
            "Missing events",
            (*_MISSING_EVENTS, ("Due (UTC)", 20), *_EVIDENCE, ("Request", 9)),
            (
                (*_subject(item), item.due_at, *_evidence(item), item.request)
                for item in missing_events
            ),
        )
        book.add(
            "Labs",
            (
                ("Lab", 20),
                ("Overdue", 12),
                ("Awaiting retry", 14),
                ("Requested", 12),
                ("Oldest due (UTC)", 20),
            ),
            (
                (lab.lab_id, lab.overdue, lab.awaiting_retry, lab.requested, lab.oldest_due_at)
                for lab in report.labs
            ),
        )
        book.add("Loss windows", _LOSS_WINDOWS, _loss_windows(report.loss_windows))
        book.add(
            "Unseen bills",
            (("Integrator", 24), ("Lab", 20), ("Expected by (UTC)", 20)),
            ((bill.integrator_id, bill.lab_id, bill.expected_by) for bill in report.unseen_bills),
        )
        book.add("Near losses", *_near_losses(report.near_losses))
        book.add(
            "Silences",
            (
                ("Lab", 20),
                ("State", 10),
                ("Last heard of (UTC)", 20),
                ("Silent for (h)", 14),
                ("Odds", 60),
            ),
            (
                (one.lab_id, one.state, one.last_heard_at, one.hours, one.odds)
                for one in report.silences
            ),
        )
        book.add(
            "Registration at Flabs",
            (("Lab", 20), ("What is wrong", 60)),
            ((found.lab_id, registration(found)) for found in report.coverage or ()),
        )
        about: list[tuple[str, Value]] = [
            ("As of (UTC)", report.as_of),
            ("Log position", report.position),
            *((f"Missing events: {state}", number) for state, number in report.totals.items()),
            ("Missing events: all", sum(report.totals.values())),
        ]
        book.add("About", _ABOUT, about)


def write_request_spreadsheet(request: SupportRequest, to: BinaryIO) -> None:
    """Write a support request: its lines and loss windows."""
    with _book(request.made_at, to) as book:
        book.add(
            "Missing events",
            (
                ("Line", 8),
                *_MISSING_EVENTS,
                *_EVIDENCE,
                ("Asked before in request", 22),
                ("Received: position", 18),
                ("Reason", 30),
            ),
            (
                (
                    number,
                    *_subject(line),
                    *_evidence(line),
                    line.previous,
                    line.received_position,
                    line.reason,
                )
                for number, line in enumerate(request.lines, 1)
            ),
        )
        book.add("Loss windows", _LOSS_WINDOWS, _loss_windows(request.loss_windows))
        about: list[tuple[str, Value]] = [
            ("Request", request.number),
            ("State", request.state),
            ("Made (UTC)", request.made_at),
            ("Made by", made_by(request)),
            ("Lab", request.lab_id),
            ("Note", request.note),
            ("Reason for closing", request.closed_reason),
        ]
        book.add("About", _ABOUT, about)


_ABOUT: tuple[Column, ...] = (("What", 30), ("Value", 30))


def _subject(missing: MissingEventItem | RequestLine) -> tuple[Value, ...]:
    return (
        missing.lab_id,
        missing.bill_id,
        missing.integrator_id,
        missing.event_type,
        missing.test_id,
        missing.certainty,
        missing.count,
        missing.state,
    )


def _evidence(missing: MissingEventItem | RequestLine) -> tuple[Value, ...]:
    evidence = missing.evidence
    return evidence.position, evidence.event_type, evidence.event_time, evidence.received_at


def _loss_windows(windows: Iterable[LossWindow]) -> Iterator[tuple[Value, ...]]:
    for window in windows:
        for lab_id in labs_of(window):
            yield lab_id, window.begin, window.end, window.state


def _near_losses(
    near_losses: Sequence[NearLoss],
) -> tuple[tuple[Column, ...], Iterator[tuple[Value, ...]]]:
    attempts = max((len(near_loss.attempts) for near_loss in near_losses), default=0)
    columns = (
        ("Lab", 20),
        ("Day (UTC)", 12),
        ("Deliveries", 12),
        *((f"Attempt {number}", 12) for number in range(1, attempts + 1)),
        ("Not clear", 12),
        ("Share of the last attempt", 24),
        ("Our clock is ahead by (s)", 24),
    )
    rows = (
        (
            near_loss.lab_id,
            near_loss.day,
            near_loss.deliveries,
            *near_loss.attempts,
            *[None] * (attempts - len(near_loss.attempts)),
            near_loss.unclear,
            near_loss.last_attempt_share,
            near_loss.clock_skew_seconds,
        )
        for near_loss in near_losses
    )
    return columns, rows


class _Book:
    """A workbook that is written row by row, one sheet after the other."""

    def __init__(self, workbook: Any) -> None:  # noqa: ANN401 -- see the import
        self._workbook = workbook
        # A text is no formula until somebody edits its cell; with this, not even then.
        self._text = workbook.add_format({"quote_prefix": True})
        self._header = workbook.add_format({"bold": True, "bottom": 1})
        self._time = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss", "align": "left"})
        self._day = workbook.add_format({"num_format": "yyyy-mm-dd", "align": "left"})

    def add(self, name: str, columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> None:
        """Write a list to as many sheets as it needs."""
        sheet, filled, number = self._sheet(name, columns), 1, 1
        for cells in rows:
            if filled == MAX_ROWS:
                self._finish(sheet, filled, columns)
                number += 1
                sheet, filled = self._sheet(f"{name} {number}", columns), 1
            for place, value in enumerate(cells):
                self._write(sheet, filled, place, value)
            filled += 1
        self._finish(sheet, filled, columns)

    def _sheet(self, name: str, columns: Sequence[Column]) -> Any:  # noqa: ANN401 -- as above
        sheet = self._workbook.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        for place, (header, width) in enumerate(columns):
            sheet.set_column(place, place, width)
            sheet.write_string(0, place, header, self._header)
        return sheet

    @staticmethod
    def _finish(sheet: Any, filled: int, columns: Sequence[Column]) -> None:  # noqa: ANN401 -- as above
        sheet.autofilter(0, 0, filled - 1, len(columns) - 1)

    def _write(self, sheet: Any, row: int, place: int, value: Value) -> None:  # noqa: ANN401 -- as above
        match value:
            case None:
                return
            case str():
                form = self._text if is_formula(value) else None
                sheet.write_string(row, place, _cell(value), form)
            case datetime():
                sheet.write_datetime(row, place, _without_zone(value), self._time)
            case date():
                sheet.write_datetime(row, place, value, self._day)
            case _:
                sheet.write_number(row, place, value)


@contextmanager
def _book(created: datetime, to: BinaryIO) -> Iterator[_Book]:
    """Yield a workbook to fill; nothing is written if filling it fails."""
    with TemporaryDirectory(prefix="ledger-") as folder:
        path = Path(folder, "book.xlsx")
        with xlsxwriter.Workbook(path, {"constant_memory": True, "tmpdir": folder}) as workbook:
            workbook.set_properties({"created": _without_zone(created)})
            yield _Book(workbook)
        with path.open("rb") as written:
            shutil.copyfileobj(written, to)


def _cell(text: str) -> str:
    """Return the text of a cell.

    xlsxwriter may take a text that begins with `<r>` for XML and write it unescaped.
    """
    safe = shown(text, unsafe="<" if text.startswith("<r>") else "")
    units = safe.encode("utf-16-le")
    if len(units) <= 2 * MAX_UNITS:
        return safe
    return units[: 2 * (MAX_UNITS - 1)].decode("utf-16-le", "ignore") + "…"


def _without_zone(at: datetime) -> datetime:
    """Return a time without its zone, as spreadsheets store it; the headers say that it is UTC."""
    return at.astimezone(UTC).replace(tzinfo=None)

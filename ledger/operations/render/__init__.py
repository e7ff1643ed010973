"""Writes a reconciliation report or a support request in one of several formats.

Everything here is pure: it reads neither a clock nor a setting. The missing events of a report can
be many, so they are read once and written as they come.
"""

from typing import BinaryIO, Literal, assert_never

from ledger.operations.read_models import (
    MissingEvents,
    ReconciliationReport,
    SinceLastRun,
    SupportRequest,
)
from ledger.operations.render.csv import write_report_rows, write_request_rows
from ledger.operations.render.json import write_report_document, write_request_document
from ledger.operations.render.letter import UNNAMED, Sender, write_letter
from ledger.operations.render.markdown import write_report_markdown
from ledger.operations.render.text import Screen, write_report_text, write_request_text
from ledger.operations.render.xlsx import write_report_spreadsheet, write_request_spreadsheet

Format = Literal["text", "json", "csv", "markdown", "xlsx"]

MEDIA_TYPES: dict[Format, str] = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
    "markdown": "text/markdown; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

PLAIN = Screen(width=100, colour=False)
"""The screen that text is laid out for when it goes to no terminal."""

__all__ = ["MEDIA_TYPES", "PLAIN", "Format", "Screen", "Sender", "write_report", "write_request"]


def write_report(
    report: ReconciliationReport,
    missing_events: MissingEvents,
    form: Format,
    to: BinaryIO,
    *,
    since: SinceLastRun | None = None,
    screen: Screen = PLAIN,
) -> None:
    """Write a report with its missing events.

    With `since` the report holds only what is new, which the formats for people then say. Only
    the format `text` uses `screen`.
    """
    match form:
        case "text":
            write_report_text(report, missing_events, to, since=since, screen=screen)
        case "json":
            write_report_document(report, missing_events, to)
        case "csv":
            write_report_rows(report, missing_events, to)
        case "markdown":
            write_report_markdown(report, missing_events, to, since=since)
        case "xlsx":
            write_report_spreadsheet(report, missing_events, to)
        case _:
            assert_never(form)


def write_request(
    request: SupportRequest,
    form: Format,
    to: BinaryIO,
    *,
    sender: Sender = UNNAMED,
    screen: Screen = PLAIN,
) -> None:
    """Write a support request; its Markdown is the letter to support, which names the sender."""
    match form:
        case "text":
            write_request_text(request, to, screen)
        case "json":
            write_request_document(request, to)
        case "csv":
            write_request_rows(request, to)
        case "markdown":
            write_letter(request, sender, to)
        case "xlsx":
            write_request_spreadsheet(request, to)
        case _:
            assert_never(form)

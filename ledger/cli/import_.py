"""`ledger import`."""

import sys
from typing import IO, TYPE_CHECKING

import rich_click as click

from ledger.cli.common import operator_option, prepared_database

if TYPE_CHECKING:
    from ledger.operations.support_requests.imports import ImportReport, SettledLine


@click.command("import")
@click.argument("file")
@click.option(
    "--expected-bills",
    is_flag=True,
    help="FILE holds expected bills: JSON Lines, or CSV whose first line names integrator_id, "
    "expected_by and, where it is known, lab_id.",
)
@operator_option
def import_(*, file: str, expected_bills: bool, by: str) -> None:
    """Take in events from FILE, - for standard input; gzip is recognised.

    JSON Lines or a JSON array: payloads of Flabs as support sends them; or what `ledger export`
    wrote. What is in the log already is not taken again, so an interrupted import is simply
    repeated. Says which lines of which support requests the file settled.
    """
    from ledger.eventlog.import_files import open_lines

    url = prepared_database()
    with open_lines(file, sys.stdin.buffer) as lines:
        if expected_bills:
            _expect(url, lines, by)
        else:
            _import(url, lines)


def _import(url: str, lines: IO[bytes]) -> None:
    from ledger.operations.support_requests.imports import import_file
    from ledger.postgres.connect import connect

    tell = _tell if sys.stderr.isatty() else _say_nothing
    with connect(url, "import") as connection:
        report = import_file(
            url, connection, lines, exports=True, patience=PATIENCE, on_progress=tell
        )
    click.echo(
        f"recorded {report.recorded}, duplicate {report.duplicate}, unreadable {report.unreadable}"
    )
    for line in report.unreadable_lines:
        click.echo(f"line {line.line}: {line.reason} at {line.path}: {line.detail}", err=True)
    more = report.unreadable - len(report.unreadable_lines)
    if more > 0:
        click.echo(f"and {more} more unreadable lines; GET /v1/events/unreadable has all", err=True)
    for event in report.resent or ():
        click.echo(
            f"position {event.position} repeats the webhook at position {event.same_as_position} "
            f"(bill {event.bill_id}, lab {event.lab_id}) with another eventTime: no second fact"
        )
    if not report.complete:
        click.echo("The array is cut off; what is there of it was taken. Get the rest.", err=True)
    if report.settled_count or report.still_open_count:
        _tell_lines(report)
    if not report.complete:
        sys.exit(1)


def _tell_lines(report: "ImportReport") -> None:
    click.echo(
        f"lines of support requests: settled {report.settled_count}, "
        f"still open {report.still_open_count}"
    )
    for settled in report.settled[:SHOWN]:
        click.echo(f"  settled     {_words(settled)}")
    for still_open in report.still_open[:SHOWN]:
        click.echo(f"  still open  {_words(still_open)}")
    if max(report.settled_count, report.still_open_count) > SHOWN:
        click.echo("  and more: GET /v1/support-requests")


def _expect(url: str, lines: IO[bytes], by: str) -> None:
    from ledger.operations.expected_bills import expect, read_expectations

    taken, _ = expect(url, read_expectations(lines), by=by, patience=PATIENCE)
    click.echo(f"expected {taken.expected}, refused {len(taken.refused)}")
    for refused in taken.refused[:SHOWN]:
        click.echo(f"line {refused.line}: {refused.detail}", err=True)
    if len(taken.refused) > SHOWN:
        click.echo(f"and {len(taken.refused) - SHOWN} more lines", err=True)
    if taken.refused:
        sys.exit(1)


PATIENCE = 600.0
"""Seconds for which the state may take to catch up with a large file."""

SHOWN = 100


def _words(line: "SettledLine") -> str:
    test = f" of test {line.test_id}" if line.test_id else ""
    at = f", position {line.received_position}" if line.received_position else ""
    return (
        f"request {line.request}: {line.event_type}{test} of bill {line.bill_id} "
        f"(lab {line.lab_id}){at}"
    )


def _tell(lines: int) -> None:
    click.echo(f"\r{lines:,} lines", nl=False, err=True)


def _say_nothing(_: int) -> None:
    """Where nobody looks, the result is enough."""

"""`ledger import`."""

import sys
from contextlib import closing
from pathlib import Path

import rich_click as click

from ledger.archive.folder import Archive
from ledger.archive.restore import ArchivedLog
from ledger.cli.common import dry_run_option, operator_option, prepared_database
from ledger.eventlog.import_events import ImportSource
from ledger.eventlog.import_files import ImportFile, Limits, open_import_file
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.expected_bills import expect, read_expectations
from ledger.operations.render.words import count
from ledger.operations.support_requests.imports import (
    ImportReport,
    SettledLine,
    import_file,
    preview_file,
)
from ledger.postgres.connect import connect
from ledger.settings import Settings

PATIENCE = 600.0
"""Seconds within which the state must have caught up with a large file."""

SHOWN = 100


@click.command("import")
@click.argument("file", required=False)
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Import an archive that `ledger archive` wrote, instead of FILE.",
)
@click.option(
    "--expected-bills",
    is_flag=True,
    help="FILE holds expected bills: JSON Lines, or CSV whose first line names integrator_id, "
    "expected_by and, where it is known, lab_id.",
)
@click.option(
    "--keep-unreadable",
    is_flag=True,
    help="Record values that are no webhook, too. Otherwise they are only reported.",
)
@dry_run_option
@operator_option
def import_(
    *,
    file: str | None,
    archive: Path | None,
    expected_bills: bool,
    keep_unreadable: bool,
    dry_run: bool,
    by: Operator,
) -> None:
    """Import events from FILE, - for standard input, or from an archive.

    FILE holds payloads of Flabs as support sends them (JSON Lines, a JSON array, or JSON values
    one after the other) or what `ledger export` wrote; in UTF-8, UTF-16 or UTF-32, plain or packed
    by gzip or zip. Any other file is refused as a whole. What is in the log already is not recorded
    again, so an interrupted import is simply repeated. Reports which lines of which support
    requests the file settled. An archive is checked first; into an empty log, each event gets its
    position again.
    """
    if (file is None) == (archive is None):
        raise click.UsageError("Name either a FILE or --archive DIR.")
    if expected_bills and (archive or keep_unreadable or dry_run):
        raise click.UsageError(
            "--expected-bills takes neither --archive nor --keep-unreadable nor --dry-run."
        )
    url = prepared_database()
    options = Options(by=by, exports=True, keep_unreadable=keep_unreadable)
    if archive:
        _import(url, ArchivedLog(Archive(archive)), options, dry_run=dry_run)
        return
    assert file is not None  # noqa: S101 -- one of both is given
    limits = Limits().with_bodies_of(Settings.from_environment().max_body)
    with open_import_file(file, sys.stdin.buffer, limits=limits) as opened:
        if expected_bills:
            _expect(url, opened, by)
        else:
            _import(url, opened, options, dry_run=dry_run)


def _import(url: str, source: ImportSource, options: Options, *, dry_run: bool) -> None:
    with closing(connect(url, "import")) as connection:
        if dry_run:
            report = preview_file(connection, source, options)
        else:
            report = import_file(
                url,
                connection,
                source,
                options,
                patience=PATIENCE,
                on_progress=_show_progress if sys.stderr.isatty() else lambda _: None,
            )
    _show(report)
    if not report.complete or _is_all_unreadable(report):
        sys.exit(1)


def _show(report: ImportReport) -> None:
    click.echo(
        f"recorded {report.recorded}, duplicate {report.duplicate}, unreadable {report.unreadable}"
    )
    for line in report.unreadable_lines:
        click.echo(f"line {line.line}: {line.reason} at {line.path}: {line.detail}", err=True)
    more = report.unreadable - len(report.unreadable_lines)
    if more > 0:
        click.echo(f"and {more} more that are no webhook", err=True)
    if left_out := report.unreadable - report.unreadable_recorded:
        click.echo(
            f"Not recorded, for they are no webhook: {left_out}. --keep-unreadable records such "
            "values, too.",
            err=True,
        )
    if report.liveness_records:
        said = count(report.liveness_records, "record")
        click.echo(f"new in it: {said} of when receivers were alive or refused deliveries")
    if report.dry_run:
        click.echo("Nothing was recorded (--dry-run).", err=True)
    if report.import_id is not None:
        click.echo(
            f"This is import {report.import_id}; `ledger export --import {report.import_id}` "
            "writes what it recorded.",
            err=True,
        )
    for event in report.resent or ():
        click.echo(
            f"position {event.position} repeats the webhook at position {event.same_as_position} "
            f"(bill {event.bill_id}, lab {event.lab_id}) with another eventTime: a duplicate"
        )
    if not report.complete:
        click.echo(
            "The file is cut off; what precedes the cut was imported. Get the rest.", err=True
        )
    if report.settled_count or report.still_open_count:
        _show_lines(report)


def _is_all_unreadable(report: ImportReport) -> bool:
    in_log = report.recorded + report.duplicate + report.unreadable_recorded
    return report.unreadable > 0 and in_log == 0


def _show_lines(report: ImportReport) -> None:
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


def _expect(url: str, file: ImportFile, by: Operator) -> None:
    taken, _ = expect(url, read_expectations(file), by=by, patience=PATIENCE)
    click.echo(f"expected {taken.expected}, refused {len(taken.refused)}")
    for refused in taken.refused[:SHOWN]:
        click.echo(f"line {refused.line}: {refused.detail}", err=True)
    if len(taken.refused) > SHOWN:
        click.echo(f"and {len(taken.refused) - SHOWN} more lines", err=True)
    if taken.refused:
        sys.exit(1)


def _words(line: SettledLine) -> str:
    test = f" of test {line.test_id}" if line.test_id else ""
    at = f", position {line.received_position}" if line.received_position else ""
    return (
        f"request {line.request}: {line.event_type}{test} of bill {line.bill_id} "
        f"(lab {line.lab_id}){at}"
    )


def _show_progress(values: int) -> None:
    click.echo(f"\r{values:,} values", nl=False, err=True)

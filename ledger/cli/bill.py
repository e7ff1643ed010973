"""`ledger bill`."""

from contextlib import closing
from datetime import UTC, datetime

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import json_option, prepared_database
from ledger.cli.missing import COLUMNS, cells
from ledger.cli.table import print_table
from ledger.model.bill import Report
from ledger.operations.bill_details import FoldedBill, LoggedItem, read_bill
from ledger.operations.policy import agree
from ledger.operations.render.words import clock, count, shown, utc
from ledger.postgres.connect import connect
from ledger.settings import Settings

REPORT_COLUMNS = ("test", "status", "completed (UTC)", "evidence")
EVENT_COLUMNS = ("position", "happened (UTC)", "received (UTC)", "source", "event", "says")


@click.command()
@click.argument("lab")
@click.argument("bill_id", metavar="BILL")
@json_option
def bill(*, lab: str, bill_id: str, as_json: bool) -> None:
    """Show bill BILL of lab LAB: state, reports, missing events, findings and events.

    The bill is folded from the log when the command runs, so it is right even if no projector runs.
    """
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    with closing(connect(url, "bill")) as connection:
        found = read_bill(connection, policy, lab, bill_id, datetime.now(UTC))
    if as_json:
        click.echo(encode(found))
        return
    if found.bill is None:
        events = count(len(found.events), "event")
        click.echo(f"Bill {shown(bill_id)} of lab {shown(lab)} has {events} and no state.")
    else:
        _show(found.bill)
    if found.findings:
        click.echo("\nFindings")
        for finding in found.findings:
            positions = ", ".join(map(str, finding.positions))
            word = "position" if len(finding.positions) == 1 else "positions"
            click.echo(f"  {finding.finding}: {shown(finding.detail)} ({word} {positions})")
    click.echo("\nEvents")
    print_table(EVENT_COLUMNS, map(_event, found.events), whole=EVENT_COLUMNS[:4])


def _show(bill: FoldedBill) -> None:
    click.echo(f"Bill {shown(bill.bill_id)} of lab {shown(bill.lab_id)} is {bill.state}.")
    facts = (
        ("integrator id", bill.integrator_id and shown(bill.integrator_id)),
        ("status at Flabs", bill.flabs_status and shown(bill.flabs_status)),
        ("created", bill.created_at and utc(bill.created_at)),
        ("completed", bill.completed_at and utc(bill.completed_at)),
        ("deleted", bill.deleted_at and utc(bill.deleted_at)),
        ("report URL", bill.report_url and shown(bill.report_url)),
        ("last event", f"received {utc(bill.last_received_at)}, position {bill.position}"),
    )
    for name, fact in facts:
        if fact:
            click.echo(f"  {name:17}{fact}")
    if bill.reports:
        click.echo(f"\nReports: {bill.reports_completed} of {bill.reports_total} completed")
        print_table(REPORT_COLUMNS, map(_report, bill.reports), whole=REPORT_COLUMNS[2:])
    if bill.missing_events:
        click.echo("\nMissing events")
        print_table(COLUMNS[2:], (cells(item)[2:] for item in bill.missing_events))


def _report(report: Report) -> tuple[str, ...]:
    completed = clock(report.completed_at) if report.completed_at else ""
    return (report.test_id, report.status or "", completed, report.evidence or "")


def _event(event: LoggedItem) -> tuple[str, ...]:
    happened = clock(event.event_time) if event.event_time else ""
    received = clock(event.received_at)
    return (
        str(event.position), happened, received, event.source, event.event_type, event.says,
    )  # fmt: skip

"""`ledger reconcile`."""

import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import rich_click as click

from ledger.cli.common import (
    PATIENCE,
    form_option,
    json_option,
    not_blank,
    operator_option,
    output_option,
    prepared_database,
    read_time,
)
from ledger.cli.output import check_writable, written
from ledger.model.operators import Operator
from ledger.operations.decisions import catch_up
from ledger.operations.policy import Policy, agree
from ledger.operations.read_models import ReconciliationReport
from ledger.operations.reconciliation import runs
from ledger.operations.reconciliation.report import Question
from ledger.operations.reconciliation.report import reconcile as ask
from ledger.operations.render import Format, Sender, write_report, write_request
from ledger.operations.render.words import count, has_news, headline, only_possible
from ledger.operations.support_requests.make import make_request
from ledger.postgres.connect import connect
from ledger.settings import Settings

FOUND = 3
"""The exit code of a check that found something."""


@click.command()
@form_option
@json_option
@output_option
@click.option("--lab", metavar="LAB", help="Only of this lab.")
@click.option(
    "--request",
    is_flag=True,
    help="Make a support request for what is overdue and not yet asked for, and show it.",
)
@click.option(
    "--include-possible",
    is_flag=True,
    help="With --request: ask also for events that are only possibly missing.",
)
@click.option(
    "--note",
    callback=not_blank,
    metavar="WORDS",
    help="With --request: a note for support, which the letter quotes.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 3 if an event is overdue, an expected bill unseen, or a loss window not asked "
    "for.",
)
@click.option(
    "--since-last",
    is_flag=True,
    help="Report only what is new since the last run with this option. If nothing is, an existing "
    "--output FILE is left as it is, and --check finds nothing.",
)
@click.option("--as-of", metavar="TIME", help="Report the state at this time (RFC 3339).")
@click.option(
    "--position",
    type=click.IntRange(min=0),
    metavar="N",
    help="Report the state of the log at position N.",
)
@operator_option
def reconcile(
    *,
    form: Format,
    as_json: bool,
    output: Path | None,
    lab: str | None,
    request: bool,
    include_possible: bool,
    note: str | None,
    check: bool,
    since_last: bool,
    as_of: str | None,
    position: int | None,
    by: Operator,
) -> None:
    """Report missing events lab by lab; with --request, ask support for them.

    A report shows its time and its log position. With both, --as-of and --position, the same report
    can be written again later.
    """
    form = "json" if as_json else form
    _refuse_contradictions(
        request=request,
        others=since_last or as_of is not None or position is not None,
        request_only=include_possible or note is not None,
        binary_to_terminal=form == "xlsx" and output is None and sys.stdout.isatty(),
    )
    moment = read_time(as_of, "--as-of") or datetime.now(UTC)
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    if request:
        made = _request(
            url,
            policy,
            form,
            output,
            lab_id=lab,
            include_possible=include_possible,
            note=note,
            by=by,
        )
        report = _left_over(url, policy, lab, include_possible=include_possible)
        if check and (made or _finds(report)):
            sys.exit(FOUND)
        return
    question = Question(
        as_of=moment,
        position=position,
        labs=None if lab is None else (lab,),
        since=runs.last_run(url) if since_last else None,
    )
    report = _report(url, policy, question, form, output)
    if since_last:
        # Noted once all is written: after a run that was killed, the next reports the same again.
        runs.note_run(url, report.as_of, report.position)
    if check and _finds(report):
        sys.exit(FOUND)


def _finds(report: ReconciliationReport) -> bool:
    open_windows = any(window.state == "open" for window in report.loss_windows)
    return bool(report.totals["overdue"] or report.unseen_bills or open_windows)


def _left_over(
    url: str, policy: Policy, lab_id: str | None, *, include_possible: bool
) -> ReconciliationReport:
    """Return the report after a request, and say which overdue events the request left out."""
    now = Question(as_of=datetime.now(UTC), labs=None if lab_id is None else (lab_id,))
    with (
        closing(connect(url, "reconcile")) as connection,
        ask(connection, policy, now) as (report, missing_events),
    ):
        possible = sum(
            item.state == "overdue" and item.certainty == "possible" for item in missing_events
        )
    if possible and not include_possible:
        click.echo(only_possible(possible), err=True)
    return report


def _report(
    url: str, policy: Policy, question: Question, form: Format, output: Path | None
) -> ReconciliationReport:
    with closing(connect(url, "reconcile")) as connection:
        if question.position is None:
            catch_up(url, connection, patience=PATIENCE)
        question, since = runs.compare_with_last_run(connection, policy, question)
        with ask(connection, policy, question) as (report, missing_events):
            if since and output and output.exists() and not has_news(report):
                click.echo(f"{headline(report, since)} {output} was left as it is.", err=True)
                return report
            with written(output) as (to, screen):
                write_report(report, missing_events, form, to, since=since, screen=screen)
    return report


def _request(
    url: str,
    policy: Policy,
    form: Format,
    output: Path | None,
    *,
    lab_id: str | None,
    include_possible: bool,
    note: str | None,
    by: Operator,
) -> bool:
    """Make a request and write it; return whether there was anything to ask for."""
    check_writable(output)
    made = make_request(
        url,
        policy,
        lab_id=lab_id,
        include_possible=include_possible,
        note=note,
        by=by,
        patience=PATIENCE,
    )
    if made is None:
        event = "event" if include_possible else "certain event"
        click.echo(
            f"No support request was made: no {event} is overdue that has not been asked for."
        )
        return False
    support_request, _ = made
    sender = Sender.of(Settings.from_environment())
    with written(output) as (to, screen):
        write_request(support_request, form, to, sender=sender, screen=screen)
    click.echo(
        f"Support request {support_request.number} was made: "
        f"{count(len(support_request.lines), 'line')}, "
        f"{count(len(support_request.loss_windows), 'loss window')}. `ledger request "
        f"{support_request.number} --format markdown` writes the letter again.",
        err=True,
    )
    return True


def _refuse_contradictions(
    *, request: bool, others: bool, request_only: bool, binary_to_terminal: bool
) -> None:
    if request and others:
        raise click.UsageError("--request asks for what is overdue now: give it without a time")
    if request_only and not request:
        raise click.UsageError("--include-possible and --note go with --request")
    if binary_to_terminal:
        raise click.UsageError("--format xlsx needs --output FILE")

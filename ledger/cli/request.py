"""`ledger request`."""

import sys
from contextlib import closing
from pathlib import Path

import msgspec
import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    PATIENCE,
    form_option,
    json_option,
    not_blank,
    operator_option,
    output_option,
    prepared_database,
)
from ledger.cli.output import written
from ledger.cli.table import print_table
from ledger.errors import UnknownSubjectError
from ledger.model.operators import Operator
from ledger.operations.read_models import RequestItem, SupportRequest
from ledger.operations.render import Format, Sender, write_request
from ledger.operations.render.words import count, made_by
from ledger.operations.support_requests.make import LineName, close_request
from ledger.operations.support_requests.queries import list_requests, read_request
from ledger.postgres.connect import connect
from ledger.settings import Settings

COLUMNS = ("request", "state", "made (UTC)", "by", "lab", "requested", "received", "closed")

PAGE = 100
"""Requests read by one query."""


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@form_option
@json_option
@output_option
@click.option(
    "--close",
    is_flag=True,
    help="Close the request, or the lines given by --line, because they will not come; needs "
    "--reason.",
)
@click.option("--reason", callback=not_blank, metavar="WORDS", help="Why they will not come.")
@click.option(
    "--line",
    "lines",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="LINE",
    help="With --close: only the line with this number; may be given several times.",
)
@operator_option
def request(
    *,
    number: int | None,
    form: Format,
    as_json: bool,
    output: Path | None,
    close: bool,
    reason: str | None,
    lines: tuple[int, ...],
    by: Operator,
) -> None:
    """List support requests, or show or close request NUMBER.

    `ledger reconcile --request` makes one. A closed line stays closed. Its number is the one that
    the request and its letter show.
    """
    form = "json" if as_json else form
    if close != (reason is not None) or (close and number is None):
        raise click.UsageError("closing takes NUMBER, --close and --reason WORDS")
    if lines and not close:
        raise click.UsageError("--line goes with --close")
    if number is None and (form not in ("text", "json") or output):
        raise click.UsageError("--output and all forms but text and json need NUMBER")
    if form == "xlsx" and output is None and sys.stdout.isatty():
        raise click.UsageError("--format xlsx needs --output FILE")
    url = prepared_database()
    if number is None:
        _list(url, as_json=form == "json")
        return
    with closing(connect(url, "request")) as connection:
        found = read_request(connection, number)
    if close and reason is not None:
        names = [_line(found, line) for line in lines]
        found, _ = close_request(
            url, number, reason=reason, by=by, lines=names or None, patience=PATIENCE
        )
    with written(output) as (to, screen):
        sender = Sender.of(Settings.from_environment())
        write_request(found, form, to, sender=sender, screen=screen)


def _line(request: SupportRequest, number: int) -> LineName:
    """Return the name of a line by its number, from 1."""
    if number > len(request.lines):
        raise UnknownSubjectError(
            f"request {request.number} has no line {number}: it has "
            f"{count(len(request.lines), 'line')}"
        )
    line = request.lines[number - 1]
    return msgspec.convert(line, LineName, from_attributes=True)


def _list(url: str, *, as_json: bool) -> None:
    found: list[RequestItem] = []
    with closing(connect(url, "request")) as connection:
        while page := list_requests(
            connection, limit=PAGE, before=found[-1].number if found else None
        ):
            found += page
    if as_json:
        for item in found:
            click.echo(encode(item))
        return
    if not found:
        click.echo(
            "No support request has been made; `ledger reconcile --request` makes one.", err=True
        )
        return
    print_table(COLUMNS, map(_cells, found), whole=("state", "made (UTC)"))


def _cells(item: RequestItem) -> tuple[str, ...]:
    counts = (str(item.lines[state]) for state in ("requested", "received", "closed"))
    return (
        str(item.number),
        item.state,
        f"{item.made_at:%F %T}",
        made_by(item),
        item.lab_id or "",
        *counts,
    )

"""`ledger windows`."""

from contextlib import closing
from datetime import UTC, datetime
from typing import get_args

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import (
    PATIENCE,
    dry_run_option,
    go_ahead,
    json_lines_option,
    not_blank,
    operator_option,
    prepared_database,
    read_time,
    yes_option,
)
from ledger.cli.table import print_table
from ledger.errors import UnknownSubjectError
from ledger.model.operators import Operator
from ledger.operations.loss_windows import close_window, read_windows
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.policy import Policy, agree
from ledger.operations.read_models import LossWindow, WindowState
from ledger.operations.render.words import count, up_to
from ledger.postgres.connect import connect
from ledger.settings import Settings

COLUMNS = ("from", "to", "state", "labs")


@click.command()
@click.option("--state", type=click.Choice(get_args(WindowState)), help="Only in this state.")
@click.option(
    "--lab",
    "labs",
    multiple=True,
    metavar="LAB",
    help="Only of this lab; may be given several times.",
)
@click.option(
    "--close",
    "span",
    nargs=2,
    metavar="FROM TO",
    help="Close the windows, or parts of windows, between two times (RFC 3339); needs --reason.",
)
@click.option(
    "--reason",
    callback=not_blank,
    metavar="WORDS",
    help="With --close: why nothing more will come of that time.",
)
@operator_option
@yes_option
@dry_run_option
@json_lines_option
def windows(
    *,
    state: WindowState | None,
    labs: tuple[str, ...],
    span: tuple[str, str] | None,
    reason: str | None,
    by: Operator,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """List loss windows, or close one.

    A loss window is a time whose events were lost because every attempt to deliver them met an
    outage of the receiver. The command shows the windows that it will close and asks for
    confirmation; without a terminal it needs --yes.
    """
    if (span is None) != (reason is None):
        raise click.UsageError("closing takes --close FROM TO and --reason WORDS")
    if span is not None and state is not None:
        raise click.UsageError("--state selects windows to list: give it without --close")
    times = span and tuple(read_time(text, "--close") for text in span)
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    found = [
        window
        for window in _read(url, policy)
        if (state is None or window.state == state) and (not labs or {*labs} & {*window.labs})
    ]
    if times and reason is not None:
        begin, end = times
        assert begin and end  # noqa: S101, PT018 -- `read_time` returns None only for no text
        within = [one for one in found if begin < one.end and one.begin < end]
        open_ones = [one for one in within if one.state != "closed"]
        if not within:
            raise UnknownSubjectError(
                "there is no such loss window at that time; `ledger windows` lists all"
            )
        if dry_run or not as_json:
            _print(open_ones, as_json=as_json)
        what = f"{count(len(open_ones), 'loss window')} will be closed, as far as in that time."
        if open_ones and not go_ahead(what, yes=yes, dry_run=dry_run, irreversible=True):
            return
        found, _ = close_window(
            url,
            policy,
            (begin, end),
            labs=list(labs) or None,
            reason=reason,
            by=by,
            patience=PATIENCE,
        )
    _print(found, as_json=as_json)
    if not found:
        click.echo("There is no loss window that matches.", err=True)


def _read(url: str, policy: Policy) -> list[LossWindow]:
    with closing(connect(url, "windows")) as connection:
        return read_windows(connection, policy, datetime.now(UTC), position=LAST_POSITION)


def _print(found: list[LossWindow], *, as_json: bool) -> None:
    if as_json:
        for window in found:
            click.echo(encode(window))
    elif found:
        print_table(COLUMNS, map(_cells, found), whole=COLUMNS[:3])


def _cells(window: LossWindow) -> tuple[str, ...]:
    # In the form that --close takes, to whole seconds that hold the window.
    begin, end = (f"{at.astimezone(UTC):%FT%TZ}" for at in (window.begin, up_to(window.end)))
    return (begin, end, window.state, ", ".join(window.labs))

"""`ledger labs`."""

from contextlib import closing
from datetime import UTC, datetime
from typing import get_args

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import json_lines_option, prepared_database
from ledger.cli.table import print_table
from ledger.model.silence import HearingState
from ledger.operations.lab_list import LabItem, list_lab_items
from ledger.operations.policy import agree
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from ledger.settings import Settings

COLUMNS = ("lab", "state", "last heard of", "overdue", "odds")

MOST = 1_000_000
"""Labs that are listed; no account has so many."""


@click.command()
@click.option("--state", type=click.Choice(get_args(HearingState)), help="Only in this state.")
@json_lines_option
def labs(*, state: HearingState | None, as_json: bool) -> None:
    """List the labs that an event was received from, and whether they are silent.

    A lab is silent if nothing came from it for so long that its own habit, by hour of the week,
    hardly explains it; it is quiet if that is only rare.
    """
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    with closing(connect(url, "labs")) as connection:
        found = list_lab_items(
            connection,
            policy,
            datetime.now(UTC),
            Hearings(),
            labs=None,
            state=state,
            after=None,
            limit=MOST,
        )
    if as_json:
        for lab in found:
            click.echo(encode(lab))
    elif found:
        print_table(COLUMNS, map(_cells, found), whole=COLUMNS[1:4])
    if not found:
        click.echo("There is no lab that matches.", err=True)


def _cells(lab: LabItem) -> tuple[str, ...]:
    heard = f"{lab.last_heard_at:%FT%TZ}" if lab.last_heard_at else ""
    return (lab.lab_id, lab.state or "", heard, str(lab.overdue), lab.odds or "")

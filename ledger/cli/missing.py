"""`ledger missing`."""

from contextlib import closing
from datetime import UTC, datetime
from typing import get_args

import rich_click as click
from msgspec.json import encode

from ledger.cli.common import json_lines_option, prepared_database
from ledger.cli.table import print_table
from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, MissingState
from ledger.operations.missing_events.queries import Filter, item_of, list_query
from ledger.operations.policy import agree
from ledger.operations.read_models import MissingEventItem
from ledger.postgres.connect import connect
from ledger.settings import Settings

COLUMNS = ("lab", "bill", "event", "test", "certainty", "state", "due (UTC)", "request")


@click.command()
@click.option("--state", type=click.Choice(get_args(MissingState)), help="Only in this state now.")
@click.option("--lab", metavar="LAB", help="Only of this lab.")
@click.option("--type", "event_type", type=click.Choice(get_args(EventType)), help="Of this type.")
@click.option(
    "--certainty",
    type=click.Choice(get_args(Certainty)),
    help="Only those proven, or only those that may be missing.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="List at most N.",
)
@json_lines_option
def missing(
    *,
    state: MissingState | None,
    lab: str | None,
    event_type: EventType | None,
    certainty: Certainty | None,
    limit: int,
    as_json: bool,
) -> None:
    """List missing events, the one missing longest first.

    An event is missing if another event proves that it was sent, or makes it likely.
    """
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    wanted = Filter(state=state, lab_id=lab, event_type=event_type, certainty=certainty)
    now = datetime.now(UTC)
    query, values = list_query(wanted, policy, now, limit=limit + 1, after=None)
    with closing(connect(url, "missing")) as connection:
        rows = connection.cursor(binary=True).execute(query, values).fetchall()
    found = [item_of(row[1:], policy, now) for row in rows if row[1] is not None]
    if as_json:
        for item in found[:limit]:
            click.echo(encode(item))
        return
    if not found:
        filtered = wanted != Filter()
        click.echo("No missing event matches." if filtered else "No event is missing.", err=True)
        return
    print_table(COLUMNS, map(cells, found[:limit]), whole=("certainty", "state", "due (UTC)"))
    if len(found) > limit:
        click.echo(f"There are more than {limit}; --limit N lists more.", err=True)


def cells(item: MissingEventItem) -> tuple[str, ...]:
    """Return the cells of a missing event in the order of `COLUMNS`."""
    return (
        item.lab_id,
        item.bill_id,
        f"{item.event_type}{f' x {item.count}' if item.count > 1 else ''}",
        item.test_id or "",
        item.certainty,
        item.state,
        f"{item.due_at:%F %T}",
        str(item.request or ""),
    )

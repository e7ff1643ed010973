"""`ledger events`."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import rich_click as click
from msgspec.json import encode
from psycopg.sql import Composed

from ledger.api.handlers.events import ALL, ALL_UNREADABLE, event_item, unreadable_item
from ledger.api.permissions import Caller
from ledger.api.schemas import EventItem, UnreadableEventItem
from ledger.cli.common import json_lines_option, prepared_database
from ledger.cli.table import print_table
from ledger.model.unreadable import REASONS
from ledger.operations.policy import agree
from ledger.operations.render.words import clock
from ledger.postgres.connect import connect
from ledger.settings import Settings

COLUMNS = ("position", "received (UTC)", "happened (UTC)", "source", "event", "lab", "bill")


@click.command()
@click.option("--unreadable", is_flag=True, help="Only unreadable events, each with the reason.")
@click.option(
    "--reason", type=click.Choice(REASONS), help="With --unreadable: only with this reason."
)
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="N", help="Only after position N."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="List at most N.",
)
@click.option(
    "--body",
    is_flag=True,
    help="With --json: show also bodies of events that are not folded, such as lead.created.",
)
@json_lines_option
def events(
    *, unreadable: bool, reason: str | None, after: int, limit: int, body: bool, as_json: bool
) -> None:
    """List the event log in order of position; with --unreadable, its unreadable events.

    An unreadable event is one whose body does not have the form of a webhook of Flabs. JSON shows
    the bodies, too; those of other types than the four that are folded only with --body, for they
    may hold a person's contact data. `ledger bill` lists the events of one bill.
    """
    if body and not as_json:
        raise click.UsageError("--body goes with --json")
    if reason is not None and not unreadable:
        raise click.UsageError("--reason goes with --unreadable")
    url = prepared_database()
    policy = agree(url, Settings.from_environment())
    query, values = (ALL_UNREADABLE, [reason, reason, None, None]) if unreadable else (ALL, [])
    shows = Caller("", "admin", None).body_rule(asked=body)
    # Each dropped once it is shown: a thousand bodies can be a gigabyte.
    found = (
        (unreadable_item if unreadable else event_item)(row, policy, shows)
        for row in _read(url, query, values, after=after, limit=limit + 1)
    )
    if as_json:
        for item in islice(found, limit):
            click.echo(encode(item))
        return
    cells = [_cells(item) for item in found]
    if not cells:
        click.echo("No event matches.", err=True)
        return
    columns = (*COLUMNS, "reason", "path", "detail") if unreadable else COLUMNS
    print_table(columns, cells[:limit], whole=COLUMNS[:4])
    if len(cells) > limit:
        last = cells[limit - 1][0]
        click.echo(f"There are more than {limit}; --after {last} goes on.", err=True)


def _read(
    url: str, query: Composed, values: list[str | None], *, after: int, limit: int
) -> Iterator[tuple[Any, ...]]:
    """Yield at most `limit` rows; one query returns fewer where bodies are large."""
    with closing(connect(url, "events")) as connection:
        while limit:
            part = connection.execute(query, [after, *values, limit]).fetchall()
            found = [row for row in part if row[1] is not None]
            if not found:
                break
            limit -= len(found)
            after = found[-1][1]
            yield from found


def _cells(item: EventItem) -> tuple[str, ...]:
    cells = (
        str(item.position),
        clock(item.received_at),
        clock(item.event_time) if item.event_time else "",
        item.source,
        item.event_type,
        item.lab_id,
        item.bill_id,
    )
    if isinstance(item, UnreadableEventItem):
        return (*cells, item.reason, item.path, item.detail)
    return cells
